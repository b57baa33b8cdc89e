"""Draws with known truth: the toy survey of the paper, plain draws from the model, and a ruler for bases."""

from robusta_prob.simulate.model_draws import low_rank
from robusta_prob.simulate.survey import Masks, Survey, Truth, largest_angle
from robusta_prob.simulate.toy_survey import toy

__all__ = ["toy", "low_rank", "largest_angle", "Survey", "Truth", "Masks"]
