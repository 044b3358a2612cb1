"""Files, optional imports, devices, progress, signals and parallel work: what every floor may use."""
