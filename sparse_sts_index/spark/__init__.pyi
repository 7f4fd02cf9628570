from .build import build_collection as build_collection
from .queries import duplicates as duplicates
from .queries import search as search
from .session import spark_session as spark_session
