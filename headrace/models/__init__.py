"""Names of models → files on this machine. Knows where a model comes from and its checksum, not what is in it."""

from headrace.models.catalogue import CATALOGUE, DEFAULT_MODEL, Entry
from headrace.models.local import Listing, ModelFile, is_here, listing, path_of, resolve, verify
from headrace.models.names import fake, is_file, parse

__all__ = [
    "CATALOGUE",
    "DEFAULT_MODEL",
    "Entry",
    "Listing",
    "ModelFile",
    "fake",
    "is_file",
    "is_here",
    "listing",
    "parse",
    "path_of",
    "resolve",
    "verify",
]
