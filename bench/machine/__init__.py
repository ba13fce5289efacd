"""The machine a run stands on: processes, devices, versions. Enters what asks the machine."""
