package config

import (
	"bytes"
	"errors"
	"flag"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMistakesAreReportedWithPlaceAndSuggestion(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no test files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".toml"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			_, err = Parse("waxwing.toml", text)
			var problems Problems
			if !errors.As(err, &problems) {
				t.Fatalf("Parse gives %v, want Problems", err)
			}
			got := problems.Error() + "\n"
			golden := strings.TrimSuffix(file, ".toml") + ".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got:\n%swant:\n%s", got, want)
			}
		})
	}
}

const whole = `
hostname = "MX.Example.test."
data_dir = "state"

[[certificate]]
cert = "tls/cert.pem"
key = "/etc/keys/key.pem"

[[listener]]
address = ":25"
protocol = "smtp"
tls = "starttls"

[[listener]]
address = "[::1]:993"
protocol = "imap"
tls = "implicit"
name = "secure"

[dns]
resolvers = ["127.0.0.1:5353", "[::1]:53"]
timeout = "250ms"

[transport]
port = 2525
routes = { "remote.test" = "127.0.0.1:2526" }
warn_after = "3d"

[transport.smart_host]
address = "smtp.example.net:587"
tls = "starttls"
username = "u"
password_file = "relay-password"

[limits]
sessions_per_peer = 7

[spool]
max_bytes = 134217728

[log]
level = "debug"
format = "json"
`

func TestLoadReadsEveryPartAndKeepsDefaults(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, FileName)
	if err := os.WriteFile(file, []byte(whole), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what      string
		got, want any
	}{
		{"hostname", cfg.Hostname, "mx.example.test"},
		{"data_dir", cfg.DataDir, filepath.Join(dir, "state")},
		{"spool dir", cfg.Spool.Dir, filepath.Join(dir, "state", "spool")},
		{"relative certificate", cfg.Certificates[0].Cert, filepath.Join(dir, "tls", "cert.pem")},
		{"absolute key", cfg.Certificates[0].Key, "/etc/keys/key.pem"},
		{"listener", cfg.Listeners[0], Listener{Address: ":25", Protocol: SMTP, TLS: StartTLS}},
		{"socket name by default", cfg.Listeners[0].SocketName(), "smtp-starttls"},
		{"socket name given", cfg.Listeners[1].SocketName(), "secure"},
		{"dns timeout", cfg.DNS.Timeout.Std(), 250 * time.Millisecond},
		{"route", cfg.Transport.Routes["remote.test"], "127.0.0.1:2526"},
		{"warn_after", cfg.Transport.WarnAfter.Std(), 72 * time.Hour},
		{"smart host password", cfg.Transport.SmartHost.PasswordFile, filepath.Join(dir, "relay-password")},
		{"size as a number", cfg.Spool.MaxBytes, Size(128 << 20)},
		{"a default beside a set key", cfg.Limits.Sessions, Default().Limits.Sessions},
		{"level", cfg.Log.Level, slog.LevelDebug},
		{"path", cfg.Path, file},
	} {
		if !reflect.DeepEqual(c.got, c.want) {
			t.Errorf("%s is %v, want %v", c.what, c.got, c.want)
		}
	}
}

func TestDefaultsAreInRange(t *testing.T) {
	t.Parallel()
	cfg := Default()
	cfg.Hostname = "mx.example.test"
	c := checker{file: FileName}
	c.config(&cfg)
	if len(c.problems) > 0 {
		t.Errorf("the defaults have problems: %v", c.problems)
	}
}

func TestWrittenFileIsReadBack(t *testing.T) {
	t.Parallel()
	for _, loopback := range []bool{false, true} {
		cfg := Default()
		cfg.Hostname = "mx.example.test"
		cfg.DataDir = "a \"quoted\"\tname\x7f\\"
		cfg.Certificates = []Certificate{{"tls/cert.pem", "tls/key.pem"}}
		cfg.Listeners = StandardListeners(loopback)
		cfg.Encryption.Source, cfg.Encryption.File = KeyFile, "keys/master.key"
		cfg.DNS.Resolvers = []string{"127.0.0.1:53"}
		cfg.Transport.Routes = map[string]string{"remote.test": "127.0.0.1:2525"}
		cfg.Metrics.Address = "127.0.0.1:9325"
		var b bytes.Buffer
		if err := cfg.Write(&b); err != nil {
			t.Fatal(err)
		}
		got, err := Parse(FileName, b.Bytes())
		if err != nil {
			t.Fatalf("%v\n%s", err, b.String())
		}
		if !reflect.DeepEqual(*got, cfg) {
			t.Errorf("loopback %v: read back\n%+v\nwant\n%+v", loopback, *got, cfg)
		}
	}
}

func TestLoopbackListenersUseTheOffset(t *testing.T) {
	t.Parallel()
	want := map[string]bool{"127.0.0.1:10025": true, "127.0.0.1:10465": true, "127.0.0.1:10587": true, "127.0.0.1:10110": true, "127.0.0.1:10995": true, "127.0.0.1:10143": true, "127.0.0.1:10993": true, "127.0.0.1:14190": true}
	got := StandardListeners(true)
	if len(got) != len(want) {
		t.Errorf("%d listeners, want %d", len(got), len(want))
	}
	for _, l := range got {
		if !want[l.Address] || !Loopback(l.Address) {
			t.Errorf("unexpected listener %v", l)
		}
	}
}

func TestReferencePageIsCurrent(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	if err := WriteReference(&b); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../../docs/reference/waxwing.toml.md")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, b.Bytes()) {
		t.Error("docs/reference/waxwing.toml.md is not current: run go generate ./internal/config")
	}
}

func TestEveryKeyIsDocumented(t *testing.T) {
	t.Parallel()
	var walk func(reflect.Type)
	walk = func(s reflect.Type) {
		for i := range s.NumField() {
			f := s.Field(i)
			if f.Tag.Get("toml") == "-" {
				continue
			}
			if f.Tag.Get("doc") == "" || f.Tag.Get("toml") == "" {
				t.Errorf("%s.%s lacks its toml or doc tag", s, f.Name)
			}
			if c := structOf(f.Type); c != nil {
				walk(c)
			}
		}
	}
	walk(reflect.TypeFor[Config]())
}

func TestSizesAndDurationsAsText(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]Size{"0": 0, "17": 17, "17B": 17, "64KiB": 64 << 10, "64 kib": 64 << 10, "1.5M": 3 << 19, "2GiB": 2 << 30, "1TiB": 1 << 40} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("ParseSize(%q) = %d, %v, want %d", text, got, err, want)
		}
		if back, err := ParseSize(want.String()); err != nil || back != want {
			t.Errorf("%d is written %q and read back %d, %v", want, want, back, err)
		}
	}
	for _, text := range []string{"", "-1", "x", "1XB", "1e300", "NaN", "99999999999TiB", "KiB"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("ParseSize(%q) = %d, want an error", text, got)
		}
	}
	for text, want := range map[string]string{"5d": "5d", "24h": "1d", "90m": "1h30m", "300s": "5m", "1h": "1h", "1500ms": "1.5s", "0s": "0s"} {
		var d Duration
		if err := d.UnmarshalText([]byte(text)); err != nil || d.String() != want {
			t.Errorf("%q is read as %s, %v, want %s", text, d, err, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	files, err := filepath.Glob("testdata/bad/*.toml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		cfg, err := Parse(FileName, text)
		if err == nil && cfg.Hostname == "" {
			t.Error("a configuration without a host name was taken")
		}
		var problems Problems
		if err != nil && !errors.As(err, &problems) {
			t.Errorf("error is not Problems: %v", err)
		}
	})
}
