//go:build tools

// Package mailhog is no program: it names one, so that `go mod tidy` keeps what
// MailHog needs. MailHog has no go.mod, and two of its dependencies have no
// version that Go would find by itself.
package mailhog

import _ "github.com/mailhog/MailHog"
