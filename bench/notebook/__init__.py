"""What ``import bench`` offers to notebooks and scripts. Enters: what :mod:`bench` names."""
