# The public names, once. Each is loaded when it is first used.
from .data.documents import Document as Document, examine_corpus as examine_corpus, read_corpus as read_corpus
from .data.fields import Field as Field
from .data.pairs import Pairs as Pairs, load_pairs as load_pairs
from .deduplication import Deduplication as Deduplication, deduplicate as deduplicate
from .encoding.encoder import SparseStsEncoder as SparseStsEncoder
from .encoding.fused_encoder import fuse as fuse
from .engines.export.anserini import export_vectors as export_vectors
from .engines.pyserini import PyseriniQueryEncoder as PyseriniQueryEncoder
from .engines.sentence_transformers import (
    LuceneCorpus as LuceneCorpus,
    semantic_search_lucene as semantic_search_lucene,
)
from .errors import (
    ClusterError as ClusterError,
    DataError as DataError,
    EngineError as EngineError,
    ForkError as ForkError,
    HubUnreachableError as HubUnreachableError,
    ImpactIndexError as ImpactIndexError,
    JavaError as JavaError,
    MissingExtraError as MissingExtraError,
    ModelError as ModelError,
    ModelMismatchError as ModelMismatchError,
    ServerError as ServerError,
    SparseStsError as SparseStsError,
    TrainingError as TrainingError,
)
from .evaluation.quality import Evaluation as Evaluation, evaluate as evaluate
from .index import SparseStsIndex as SparseStsIndex
from .search.results import (
    Group as Group,
    Groups as Groups,
    Hit as Hit,
    Hits as Hits,
    Pair as Pair,
)
from .storage.manifest import Manifest as Manifest
from .training.fine_tuning import train as train
from .training.settings import TrainingSettings as TrainingSettings
from .vectors.explanations import (
    PairExplanation as PairExplanation,
    TermContribution as TermContribution,
    explain_pair as explain_pair,
    explain_traces as explain_traces,
)
from .vectors.quantizer import Quantizer as Quantizer
from .vectors.trace import Trace as Trace
from .vectors.vocabulary import Vocabulary as Vocabulary
