"""What is unexpected: predictive residuals, null laws, outlier scores."""
