package main

import (
	"runtime"
	"runtime/debug"
)

type versionCommand struct{}

func (versionCommand) Run(s *session) error {
	info := map[string]string{"version": version, "go": runtime.Version(), "platform": runtime.GOOS + "/" + runtime.GOARCH}
	if b, ok := debug.ReadBuildInfo(); ok {
		for _, set := range b.Settings {
			if set.Key == "vcs.revision" {
				info["revision"] = set.Value
			}
		}
	}
	return s.print(info, func(p *printer) {
		p.row("waxwing", info["version"])
		p.row("built with", info["go"], info["platform"])
	})
}
