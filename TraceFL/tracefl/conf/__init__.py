"""TraceFL's configuration files: a package, so that Hydra finds them wherever it is installed."""
