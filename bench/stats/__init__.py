"""Statistics of studies: values in, values out. Enters neither file nor torch."""
