"""Collections built, joined and searched by Apache Spark, a shard a task.

Spark's own processes run on an installed JDK; its Python workers encode, and start Lucene's virtual machine as any
other process of this library does. The extra ``spark`` brings PySpark.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
