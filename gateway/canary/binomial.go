package canary

import "math"

// tail is the probability that of n independent trials, each a success with probability p, at least k succeed. It sums the
// terms on the shorter side of k, so that small results keep their precision; its cost grows with the width of the
// distribution, the square root of n.
func tail(k, n int, p float64) float64 {
	switch {
	case k <= 0:
		return 1
	case k > n || p <= 0:
		return 0
	case p >= 1:
		return 1
	case float64(k) < float64(n)*p:
		return max(1-sum(k-1, n, p, -1), 0)
	}
	return min(sum(k, n, p, 1), 1)
}

// sum adds the probabilities of exactly k, k+step, k+2 step… successes, moving away from the mean, until they no longer
// count.
func sum(k, n int, p float64, step int) float64 {
	odds := p / (1 - p)
	term := math.Exp(choose(n, k) + float64(k)*math.Log(p) + float64(n-k)*math.Log1p(-p))
	total := 0.0
	for ; k >= 0 && k <= n; k += step {
		total += term
		if term < total*1e-17 {
			break
		}
		if step > 0 {
			term *= odds * float64(n-k) / float64(k+1)
		} else {
			term *= float64(k) / (odds * float64(n-k+1))
		}
	}
	return total
}

// choose is the logarithm of n over k.
func choose(n, k int) float64 {
	a, _ := math.Lgamma(float64(n + 1))
	b, _ := math.Lgamma(float64(k + 1))
	c, _ := math.Lgamma(float64(n - k + 1))
	return a - b - c
}

// atMost is the upper end of a one-sided confidence interval for a probability of which k of n trials were seen to
// succeed: the largest that would show so few with probability alpha (Clopper and Pearson, "The use of confidence or
// fiducial limits illustrated in the case of the binomial", Biometrika 26, 1934).
func atMost(k, n int, alpha float64) float64 {
	if k >= n {
		return 1
	}
	low, high := float64(k)/float64(n), 1.0
	for range 60 {
		p := (low + high) / 2
		if 1-tail(k+1, n, p) > alpha {
			low = p
		} else {
			high = p
		}
	}
	return high
}

// quantileRank is the smallest rank, from 1, of n values in order that is above their distribution's quantile q with
// probability 1-alpha, whatever the distribution (David and Nagaraja, "Order Statistics", 3rd edition, section 7.1). False:
// n is too small to tell.
func quantileRank(n int, q, alpha float64) (rank int, ok bool) {
	low, high := 1, n+1 // high is above all of them
	for low < high {
		mid := (low + high) / 2
		if tail(mid, n, q) <= alpha {
			high = mid
		} else {
			low = mid + 1
		}
	}
	return low, low <= n
}
