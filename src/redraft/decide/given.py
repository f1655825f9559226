def questions_of(value):
    raise NotImplementedError
