"""Every error that a user can cause: one tree, one line each, always with the remedy."""


class UnveilError(Exception):
    """Root of the tree. The command line prints it as one line and exits with code 2."""


class ConfigError(UnveilError):
    """A configuration file, preset or override is wrong; names the field and the nearest valid one."""


class WeightsError(UnveilError):
    """A weights file is missing, damaged or does not fit the configuration; names file and tensors."""


class PictureError(UnveilError):
    """A picture cannot be read or has an unusable size."""


class PromptError(UnveilError):
    """A prompt, question or instruction cannot be used (empty, or longer than the context)."""


class RequestError(UnveilError):
    """A setting of one request is impossible (steps, guidance, size, seed)."""


class BusyError(UnveilError):
    """The engine cannot take or finish a request now (queue full, deadline passed, no memory); says the numbers."""


class CancelledError(UnveilError):
    """The request was cancelled by whoever asked."""


class GenerationError(UnveilError):
    """The model's own output cannot be used, e.g. thinking that never begins a picture."""


class OutputError(UnveilError):
    """A file or directory cannot be written; names it and says why."""


class TrainingError(UnveilError):
    """A training run cannot start, continue or be saved; names the step or file."""


class DivergenceError(TrainingError):
    """A loss or gradient is not finite; names the step and both numbers. The weights are as before that step."""
