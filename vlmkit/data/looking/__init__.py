"""Looking at packed samples: counts and costs, charts of them, and contact sheets of the samples themselves."""
