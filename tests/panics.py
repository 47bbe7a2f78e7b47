"""A panic of native code, as pyo3 raises it: no `Exception`, and of a type that nobody can name."""


class PanicException(BaseException):
    """What `pyo3_runtime.PanicException` is to Python."""
