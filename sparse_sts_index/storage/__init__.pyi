from .impact_index import ImpactIndex as ImpactIndex
from .lucene.jvm import detach_thread as detach_thread, start_jvm as start_jvm
from .merging import merge as merge
from .upgrading import upgrade as upgrade
