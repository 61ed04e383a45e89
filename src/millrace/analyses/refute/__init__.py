"""refute: try to break a causal estimate, a thousand times, honestly.

spec (the question), question (data read, confounders chosen), study (what estimators see), plan and facts (what it will
take), analysis (the order of work), batches (the tasks), rules and gate (verdicts), sensitivity and overlap (closed
forms), answer (the result), views (its pictures), dowhy (from and to DoWhy), kernels/ (the numeric work), oracle (refits).
"""
