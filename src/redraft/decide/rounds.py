def decide(*a):
    raise NotImplementedError
