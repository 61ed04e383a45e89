"""What is computed: one folder an analysis, all with the same rooms (spec, plan, analysis, kernels, views)."""
