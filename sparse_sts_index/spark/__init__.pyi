from .build import build_collection as build_collection
from .queries import duplicates as duplicates, search as search
from .session import spark_session as spark_session
