"""The errors this library raises for anything a caller can cause or mend.

Each message is one line that names the file, line, model or setting at fault, fit to be shown to a user as it is.
A mistake in the calling code itself (a negative ``k``, say) raises ``ValueError`` as usual.
"""


class SparseStsError(Exception):
    """Base class of every error of this library."""


class DataError(SparseStsError):
    """Input that cannot be read: a missing or malformed file, a missing column, a score out of range."""


class ModelError(SparseStsError):
    """A model that cannot be found, loaded or used as a SPLADE encoder."""


class ModelMismatchError(ModelError):
    """A query model other than the one an index was built with."""


class HubUnreachableError(SparseStsError):
    """A model or data set that is not on this machine while the Hugging Face hub cannot be reached."""


class TrainingError(SparseStsError):
    """A training run that cannot start: its output is taken, nothing to resume, no such device or reporting tool."""


class ImpactIndexError(SparseStsError):
    """A path that holds no usable index, or an index that may not be written."""


class JavaError(SparseStsError):
    """No Java 21 or newer, or a Java virtual machine that does not start."""


class ForkError(SparseStsError):
    """Java or torch used in a process that was forked after their first use, which they do not survive."""


class ClusterError(SparseStsError):
    """A Spark that does not start, or a job of it that fails for no reason of this library's."""


class ServerError(SparseStsError):
    """A server that cannot start: its address is taken, or open to others without a token."""


class EngineError(SparseStsError):
    """A serving engine that cannot be reached, refuses what it is sent, or holds something else under that name."""


class MissingExtraError(SparseStsError):
    """A package that only some commands need, and pip has not been asked for.

    Parameters
    ----------
    package, extra : str
        What is missing, and which extra of this package brings it.
    """

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"needs the package {package}: pip install 'sparse-sts-index[{extra}]'")
