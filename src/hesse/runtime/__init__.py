"""Files, optional imports, devices, progress, signals and parallel work: helpers for all other packages."""
