"""explain: SHAP values, exact where they can be, for one row or millions.

spec (the question), facts and plan (what it will take), analysis (the order of work), blocks (the tasks), answer
(the result), views (its pictures), kernels/ (the numeric work), oracle (the naive reference).
"""
