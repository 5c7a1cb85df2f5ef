"""How well a score tells two sets apart."""

import numpy as np
from scipy import stats


def auroc(inside: np.ndarray, outside: np.ndarray) -> float:
    """The area under the ROC curve: how often an image of `outside` [M] scores higher than one of `inside` [N], a tie
    counting half. 0.5 is chance, 1 perfect, below 0.5 the wrong way round."""
    ranks = stats.rankdata(np.concatenate([inside, outside]))
    wins = ranks[len(inside) :].sum() - len(outside) * (len(outside) + 1) / 2
    return float(wins / (len(inside) * len(outside)))
