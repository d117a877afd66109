package directory

import (
	"waxwing/internal/sieve"
	"waxwing/internal/store"
)

// SieveOptions is how the scripts of users are compiled.
func (s Settings) SieveOptions() sieve.Options {
	o := sieve.Options{Limits: sieve.Limits{ScriptBytes: s.SieveScriptSize, Redirects: s.SieveRedirects}}
	if s.SieveRedirects == 0 {
		o.Limits.Redirects = sieve.NoRedirects
	}
	return o
}

// SieveLimits are what an account may have of scripts.
func (s Settings) SieveLimits() store.SieveLimits {
	return store.SieveLimits{Scripts: s.SieveScripts, Octets: int64(s.SieveScriptSize)}
}

// sieveScript tells what is wrong with a script of the administrator's; "" when nothing is.
func (s *Settings) sieveScript(text string) string {
	if text == "" {
		return ""
	}
	if _, err := sieve.Compile([]byte(text), s.SieveOptions()); err != nil {
		return "a Sieve script: " + err.Error()
	}
	return ""
}
