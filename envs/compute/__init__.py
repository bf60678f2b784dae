"""Spending tokens at test time: `TestTimeCompute-v0`, its pools of chains, exact estimates and optima."""
