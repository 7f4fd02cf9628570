# The public names, once. Each is loaded when it is first used.
from .data.documents import Document as Document
from .data.documents import read_corpus as read_corpus
from .data.pairs import Pairs as Pairs
from .data.pairs import load_pairs as load_pairs
from .encoding.encoder import SparseStsEncoder as SparseStsEncoder
from .encoding.fused_encoder import fuse as fuse
from .engines.export.anserini import export_vectors as export_vectors
from .engines.pyserini import PyseriniQueryEncoder as PyseriniQueryEncoder
from .engines.sentence_transformers import LuceneCorpus as LuceneCorpus
from .engines.sentence_transformers import semantic_search_lucene as semantic_search_lucene
from .errors import (
    ClusterError as ClusterError,
)
from .errors import (
    DataError as DataError,
)
from .errors import (
    EngineError as EngineError,
)
from .errors import (
    ForkError as ForkError,
)
from .errors import (
    HubUnreachableError as HubUnreachableError,
)
from .errors import (
    ImpactIndexError as ImpactIndexError,
)
from .errors import (
    JavaError as JavaError,
)
from .errors import (
    MissingExtraError as MissingExtraError,
)
from .errors import (
    ModelError as ModelError,
)
from .errors import (
    ModelMismatchError as ModelMismatchError,
)
from .errors import (
    ServerError as ServerError,
)
from .errors import (
    SparseStsError as SparseStsError,
)
from .errors import (
    TrainingError as TrainingError,
)
from .evaluation.quality import Evaluation as Evaluation
from .evaluation.quality import evaluate as evaluate
from .index import SparseStsIndex as SparseStsIndex
from .search.results import (
    Group as Group,
)
from .search.results import (
    Groups as Groups,
)
from .search.results import (
    Hit as Hit,
)
from .search.results import (
    Hits as Hits,
)
from .search.results import (
    Pair as Pair,
)
from .storage.manifest import Manifest as Manifest
from .training.fine_tuning import train as train
from .training.settings import TrainingSettings as TrainingSettings
from .vectors.explanations import (
    PairExplanation as PairExplanation,
)
from .vectors.explanations import (
    TermContribution as TermContribution,
)
from .vectors.explanations import (
    explain_pair as explain_pair,
)
from .vectors.explanations import (
    explain_traces as explain_traces,
)
from .vectors.quantizer import Quantizer as Quantizer
from .vectors.trace import Trace as Trace
from .vectors.vocabulary import Vocabulary as Vocabulary
