class OptionWeights:
    def __init__(self, texts, length):
        raise NotImplementedError
