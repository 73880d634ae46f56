# Makes r_glasso.txt: three weighted problems of one class solved by the R package glasso (Friedman, Hastie, Tibshirani
# 2008) at tight tolerance, diagonal unpenalised.  Run: Rscript r_glasso.R > r_glasso.txt
library(glasso)
cat("# glasso", as.character(packageVersion("glasso")), "\n")
for (p in c(4, 8, 12)) {
  i <- 1:p
  covariance <- 0.5 * 0.7^abs(outer(i, i, "-")) + 0.5 * outer(cos(i), cos(i))
  s <- cov2cor(covariance)
  level <- 0.02 + 0.1 * abs(sin(outer(i, i)))
  diag(level) <- 0
  w <- glasso(s, rho = level, thr = 1e-13, maxit = 1e6, penalize.diagonal = FALSE)$wi
  cat(p, sprintf("%.12g", (w + t(w)) / 2), "\n")
}
