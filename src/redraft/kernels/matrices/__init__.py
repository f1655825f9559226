"""What a quantised matrix is: types, and the arithmetic of rounding to them. Operations stand above."""

from redraft.kernels.matrices.float8 import Float8Matrix
from redraft.kernels.matrices.int4 import Int4Matrix
from redraft.kernels.matrices.int8 import Int8Matrix

Matrix = Int4Matrix | Int8Matrix | Float8Matrix
