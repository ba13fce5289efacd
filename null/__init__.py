"""The plug-in that changes nothing: what two equal arms differ by."""
