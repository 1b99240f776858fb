"""Keys and scopes: who may do what."""

from imagedex.access._sql import SqlKeyStore
from imagedex.access.interfaces import KeyStore, StoredKey
from imagedex.access.records import ApiKey, Principal, Scope
from imagedex.access.service import ADMIN_SETTING_KEY_ID, KeyService

__all__ = [
    "ADMIN_SETTING_KEY_ID",
    "ApiKey",
    "KeyService",
    "KeyStore",
    "Principal",
    "Scope",
    "SqlKeyStore",
    "StoredKey",
]
