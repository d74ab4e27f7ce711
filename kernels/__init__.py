"""One operation, one name. Holds nothing: transformers probes for a package of this name and must find it empty."""
