// Package canary judges whether the requests that one service answers fare worse than those that another does at the same
// time: a count of both over a rolling window, and an exact statistical test on it. It knows neither configs nor HTTP;
// gateway/proxy tells it how requests went and gateway acts on its verdicts.
package canary
