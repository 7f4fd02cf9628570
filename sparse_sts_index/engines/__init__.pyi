from .base import Engine as Engine
from .pushing import push as push
from .registry import connect as connect
from .remote_index import RemoteIndex as RemoteIndex
from .sources import Source as Source
