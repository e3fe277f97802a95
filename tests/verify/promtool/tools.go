//go:build tools

// Package promtool is no program: it names one, so that `go mod tidy` keeps what
// it needs.
package promtool

import _ "github.com/prometheus/prometheus/cmd/promtool"
