"""Building blocks shared by all model families; they import torch only."""
