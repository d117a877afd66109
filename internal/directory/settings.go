package directory

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"waxwing/internal/address"
	"waxwing/internal/backup"
	"waxwing/internal/smtp"
	"waxwing/internal/store"
	"waxwing/internal/tlspolicy"
)

// Settings are the settings of the whole server at one version. The version counts the changes of domains, accounts and
// aliases too. A setting that was never changed has its default.
type Settings struct {
	Version int64 // 0 before the first change

	MessageSize         int64  // octets of one message, for SIZE and the limit of intake
	Recipients          int    // of one message
	RecipientDomains    int    // different ones among them; 0: no limit
	HoldDays            int    // for which users may have a message held back (RFC 4865); 0: not at all
	Priority            int    // highest that users may ask for (RFC 6710)
	SubmissionEncoding  string // of users' messages for other servers: "as-is" or "ascii"
	QuotaBytes          int64  // of a new account that says nothing else; 0: none
	QuotaMessages       int64  // the same
	SubaddressSeparator string // one character; RFC 5233
	Language            string // of a new account: "en" or "zh"
	SentFolder          string // names of the folders that a new account begins with
	DraftsFolder        string
	TrashFolder         string
	JunkFolder          string
	ArchiveFolder       string

	UndeleteDays  int // for which what was deleted can be restored
	EraseDays     int // within which it is then gone from the disk
	TrashDays     int // after which messages leave the folder for deleted mail; 0: never
	JunkDays      int // the same for the junk folder
	TombstoneDays int // for which the ids of removed messages are remembered; 0: for ever

	SuppressFailures int  // for good that an address needs until nothing is sent there any more; 0: never
	SuppressDays     int  // within which they must come
	SuppressForDays  int  // for which nothing is sent then
	SuppressRefuse   bool // refuse at RCPT in place of a report

	ScrubRate int64 // octets a second that the scrub reads; 0: none

	SieveBefore     string // script that runs before those of users; "": none
	SieveAfter      string // the same after them
	SieveScripts    int    // of one account
	SieveScriptSize int    // octets of one script
	SieveRedirects  int    // of one message by scripts

	TLSReports  string // "on" or "off": other domains get reports about TLS
	TLSPolicies string // how connections to other servers are protected, as tlspolicy.Parse reads it

	RelayKnown   int // minutes for which a recipient that the next server takes is not asked about again
	RelayUnknown int // the same for one that it refuses

	SRSDomain string // of rewritten senders; "": that of the address that forwards
	SRSDays   int    // for which failures of forwarded mail are taken back

	Milters       string // as ParseMilters reads them
	TraceDays     int    // for which it is kept what became of messages; 0: for ever
	TraceSubjects string // what traces have of subjects: "off", "hash" or "full"

	Backup   BackupSettings
	Stranger StrangerSettings
	Guard    GuardSettings
	Rules    *Rules // nil: none; shared: do not change
}

// BackupSettings say where backups go, when, and for whom.
type BackupSettings struct {
	Target          string // "" is none
	CredentialsFile string // of a bucket
	Recipients      string // age recipients, separated by spaces
	Schedule        string // as backup.ParseSchedule reads it
	Rate            int64  // octets a second; 0: no bound
	KeepDaily       int    // 0 of all three: all backups are kept
	KeepWeekly      int
	KeepMonthly     int
	TestDays        int    // between two tests of the newest backup; 0: none
	TestKeyFile     string // identity that tests decrypt with; "": they look from outside
}

// BackupPlan is what the settings say about backups.
func (s Settings) BackupPlan() backup.Plan {
	b := s.Backup
	schedule, err := backup.ParseSchedule(b.Schedule)
	if err != nil {
		schedule = backup.Schedule{} // check has let none through that can't be read
	}
	return backup.Plan{
		Target: b.Target, Credentials: b.CredentialsFile, Recipients: backup.SplitRecipients(b.Recipients), Schedule: schedule, Rate: b.Rate,
		Keep:      backup.Retention{Daily: b.KeepDaily, Weekly: b.KeepWeekly, Monthly: b.KeepMonthly},
		TestEvery: time.Duration(b.TestDays) * 24 * time.Hour, TestKey: b.TestKeyFile,
	}
}

// Setting describes one setting for those who show or change it.
type Setting struct {
	Name    string          // e.g. "message.size"
	Doc     string          // what it is, with its unit and range
	Default json.RawMessage // JSON
	Value   json.RawMessage // JSON, the default when it was never changed
	Changed bool            // whether it differs from the default
}

// settingDef ties a name to a field of Settings. field gives a pointer to it.
type settingDef struct {
	name, doc string
	field     func(*Settings) any
	check     func(*Settings) string // what is allowed, when the value isn't; "" when it is
}

// settingDefs is the table of all settings, by name: nothing else knows them.
var settingDefs = slices.SortedFunc(slices.Values(slices.Concat(generalDefs, guardDefs, strangerDefs)), func(a, b settingDef) int { return cmp.Compare(a.name, b.name) })

var generalDefs = []settingDef{
	{"account.language", "language of a new account: en or zh", func(s *Settings) any { return &s.Language }, func(s *Settings) string {
		return allowed(s.Language == "en" || s.Language == "zh", "en or zh")
	}},
	{"account.quota_bytes", "octets that a new account may hold; 0: no limit", func(s *Settings) any { return &s.QuotaBytes }, func(s *Settings) string {
		return allowed(s.QuotaBytes >= 0 && s.QuotaBytes <= maxQuota, "0 (no limit) or more")
	}},
	{"account.quota_messages", "messages that a new account may hold; 0: no limit", func(s *Settings) any { return &s.QuotaMessages }, func(s *Settings) string {
		return allowed(s.QuotaMessages >= 0 && s.QuotaMessages <= maxQuota, "0 (no limit) or more")
	}},
	{"address.subaddress_separator", "character between user and tag in user+tag@domain", func(s *Settings) any { return &s.SubaddressSeparator }, func(s *Settings) string {
		return allowed(len(s.SubaddressSeparator) == 1 && strings.Contains("+-=_#~", s.SubaddressSeparator), "one of + - = _ # ~")
	}},
	{"backup.credentials_file", "file with access key and secret key, a line each, of a backup target that is a bucket; full path", func(s *Settings) any { return &s.Backup.CredentialsFile }, func(s *Settings) string {
		return fullPath(s.Backup.CredentialsFile)
	}},
	{"backup.keep_daily", "days of which the newest backup is kept; 0 here and for weeks and months: all backups are kept", func(s *Settings) any { return &s.Backup.KeepDaily }, func(s *Settings) string {
		return someBackups(s.Backup.KeepDaily)
	}},
	{"backup.keep_monthly", "months of which the newest backup is kept", func(s *Settings) any { return &s.Backup.KeepMonthly }, func(s *Settings) string {
		return someBackups(s.Backup.KeepMonthly)
	}},
	{"backup.keep_weekly", "weeks of which the newest backup is kept", func(s *Settings) any { return &s.Backup.KeepWeekly }, func(s *Settings) string {
		return someBackups(s.Backup.KeepWeekly)
	}},
	{"backup.rate", "octets a second that backups send, and tests of them read, at most; 0: no bound", func(s *Settings) any { return &s.Backup.Rate }, func(s *Settings) string {
		return allowed(s.Backup.Rate == 0 || s.Backup.Rate >= 64<<10 && s.Backup.Rate <= 1<<40, "0 (no bound) or 65536 (64 KiB) or more")
	}},
	{"backup.recipients", "age recipients that can read the backups, separated by spaces: the public halves of keys that are kept elsewhere", func(s *Settings) any { return &s.Backup.Recipients }, func(s *Settings) string {
		list := backup.SplitRecipients(s.Backup.Recipients)
		_, err := backup.ParseRecipients(list)
		return allowed(len(list) == 0 || err == nil, "age recipients, separated by spaces; all of one kind, age1 or age1pq1")
	}},
	{"backup.schedule", "when backups are made: a time of day like 03:30, an interval like 6h, or nothing for never", func(s *Settings) any { return &s.Backup.Schedule }, func(s *Settings) string {
		_, err := backup.ParseSchedule(s.Backup.Schedule)
		return allowed(err == nil, "a time of day like 03:30, an interval from 1m to 744h like 6h, or nothing for never")
	}},
	{"backup.target", "where backups go: the full path of a directory, or https://host/bucket/prefix?region=R", func(s *Settings) any { return &s.Backup.Target }, func(s *Settings) string {
		_, err := backup.ParsePlace(s.Backup.Target)
		return allowed(s.Backup.Target == "" || err == nil, "the full path of a directory, or https://host/bucket/prefix?region=R (http:// for loopback only)")
	}},
	{"backup.test_days", "days after which the newest backup is tested anew; 0: never", func(s *Settings) any { return &s.Backup.TestDays }, func(s *Settings) string {
		return someDays(s.Backup.TestDays)
	}},
	{"backup.test_key_file", "file with an age identity of this server's own, for which backups are encrypted too, so that tests can restore them; full path", func(s *Settings) any { return &s.Backup.TestKeyFile }, func(s *Settings) string {
		return fullPath(s.Backup.TestKeyFile)
	}},
	{"folder.archive", "name of the archive folder of a new account", func(s *Settings) any { return &s.ArchiveFolder }, func(s *Settings) string { return folderName(s.ArchiveFolder) }},
	{"folder.drafts", "name of the drafts folder of a new account", func(s *Settings) any { return &s.DraftsFolder }, func(s *Settings) string { return folderName(s.DraftsFolder) }},
	{"folder.junk", "name of the junk folder of a new account", func(s *Settings) any { return &s.JunkFolder }, func(s *Settings) string { return folderName(s.JunkFolder) }},
	{"folder.sent", "name of the folder for sent mail of a new account", func(s *Settings) any { return &s.SentFolder }, func(s *Settings) string { return folderName(s.SentFolder) }},
	{"folder.trash", "name of the folder for deleted mail of a new account", func(s *Settings) any { return &s.TrashFolder }, func(s *Settings) string { return folderName(s.TrashFolder) }},
	{"message.hold_days", "days for which users may have a message held back before it is sent (FUTURERELEASE); 0: not at all, to 3650", func(s *Settings) any { return &s.HoldDays }, func(s *Settings) string {
		return allowed(s.HoldDays >= 0 && s.HoldDays <= 3650, "0 (not at all) to 3650")
	}},
	{"message.priority", "highest priority that users may give their messages (MT-PRIORITY): 0 to 9", func(s *Settings) any { return &s.Priority }, func(s *Settings) string {
		return allowed(s.Priority >= 0 && s.Priority <= smtp.HighestPriority, "0 to 9")
	}},
	{"message.recipient_domains", "different domains among the recipients of one message; 0: no limit, to 10000", func(s *Settings) any { return &s.RecipientDomains }, func(s *Settings) string {
		return allowed(s.RecipientDomains >= 0 && s.RecipientDomains <= 10_000, "0 (no limit) to 10000")
	}},
	{"message.recipients", "recipients of one message: 100 to 10000", func(s *Settings) any { return &s.Recipients }, func(s *Settings) string {
		return allowed(s.Recipients >= 100 && s.Recipients <= 10_000, "100 to 10000 (RFC 5321, section 4.5.3.1.8, asks for 100)")
	}},
	{"message.size", "octets of one message: 65536 to 1073741824", func(s *Settings) any { return &s.MessageSize }, func(s *Settings) string {
		return allowed(s.MessageSize >= 64<<10 && s.MessageSize <= 1<<30, "65536 (64 KiB) to 1073741824 (1 GiB)")
	}},
	{"milter.chain", "milters in the order in which they are asked, as `waxwing milter` writes them: a JSON list", func(s *Settings) any { return &s.Milters }, func(s *Settings) string {
		_, err := ParseMilters(s.Milters)
		return allowed(err == nil, "a JSON list of at most 10 milters; `waxwing milter add` writes it")
	}},
	{"queue.suppress_days", "days within which failures for good must come until nothing is sent to an address: 1 to 365", func(s *Settings) any { return &s.SuppressDays }, func(s *Settings) string {
		return allowed(s.SuppressDays >= 1 && s.SuppressDays <= 365, "1 to 365")
	}},
	{"queue.suppress_failures", "failures for good after which nothing is sent to an address: 1 to 100; 0: never", func(s *Settings) any { return &s.SuppressFailures }, func(s *Settings) string {
		return allowed(s.SuppressFailures >= 0 && s.SuppressFailures <= 100, "0 (never) to 100")
	}},
	{"queue.suppress_for_days", "days for which nothing is sent to an address then: 1 to 3650", func(s *Settings) any { return &s.SuppressForDays }, func(s *Settings) string {
		return allowed(s.SuppressForDays >= 1 && s.SuppressForDays <= 3650, "1 to 3650")
	}},
	{"queue.suppress_refuse", "refuse such a recipient when mail is submitted, in place of a report to the sender", func(s *Settings) any { return &s.SuppressRefuse }, func(*Settings) string {
		return ""
	}},
	{"relay.known_minutes", "minutes for which the next server is not asked again about a recipient of a relay domain that it takes: 1 to 10080", func(s *Settings) any { return &s.RelayKnown }, func(s *Settings) string {
		return allowed(s.RelayKnown >= 1 && s.RelayKnown <= 10_080, "1 to 10080")
	}},
	{"relay.unknown_minutes", "minutes for which it is not asked again about a recipient that it refuses: 1 to 10080", func(s *Settings) any { return &s.RelayUnknown }, func(s *Settings) string {
		return allowed(s.RelayUnknown >= 1 && s.RelayUnknown <= 10_080, "1 to 10080")
	}},
	{"retention.junk_days", "days after which messages leave the junk folder; 0: never", func(s *Settings) any { return &s.JunkDays }, func(s *Settings) string { return someDays(s.JunkDays) }},
	{"retention.tombstone_days", "days for which the ids of removed messages are remembered for mail programs; 7 to 36500, 0: for ever", func(s *Settings) any { return &s.TombstoneDays }, func(s *Settings) string {
		return allowed(s.TombstoneDays == 0 || s.TombstoneDays >= 7 && s.TombstoneDays <= maxDays, "0 (for ever) or 7 to 36500")
	}},
	{"retention.trash_days", "days after which messages leave the folder for deleted mail; 0: never", func(s *Settings) any { return &s.TrashDays }, func(s *Settings) string { return someDays(s.TrashDays) }},
	{"scrub.rate", "octets a second at which all stored mail is read again and again to find damage; 0: not at all", func(s *Settings) any { return &s.ScrubRate }, func(s *Settings) string {
		return allowed(s.ScrubRate == 0 || s.ScrubRate >= 64<<10 && s.ScrubRate <= 1<<30, "0 (not at all) or 65536 (64 KiB) to 1073741824 (1 GiB)")
	}},
	{"sieve.after", "Sieve script that runs for each message to a mailbox after the user's own, as long as that keeps it; nothing: none", func(s *Settings) any { return &s.SieveAfter }, func(s *Settings) string {
		return s.sieveScript(s.SieveAfter)
	}},
	{"sieve.before", "Sieve script that runs for each message to a mailbox before the user's own, which runs only if this one keeps it; nothing: none", func(s *Settings) any { return &s.SieveBefore }, func(s *Settings) string {
		return s.sieveScript(s.SieveBefore)
	}},
	{"sieve.redirects", "addresses that Sieve scripts may redirect one message to: 0 to 100", func(s *Settings) any { return &s.SieveRedirects }, func(s *Settings) string {
		return allowed(s.SieveRedirects >= 0 && s.SieveRedirects <= 100, "0 to 100")
	}},
	{"sieve.script_size", "octets of one Sieve script: 4096 to 1048576", func(s *Settings) any { return &s.SieveScriptSize }, func(s *Settings) string {
		return allowed(s.SieveScriptSize >= 4<<10 && s.SieveScriptSize <= 1<<20, "4096 (4 KiB) to 1048576 (1 MiB)")
	}},
	{"sieve.scripts", "Sieve scripts that an account may have: 1 to 1000", func(s *Settings) any { return &s.SieveScripts }, func(s *Settings) string {
		return allowed(s.SieveScripts >= 1 && s.SieveScripts <= 1000, "1 to 1000")
	}},
	{"srs.days", "days for which notifications of failure of forwarded mail are taken back for its sender: 7 to 365", func(s *Settings) any { return &s.SRSDays }, func(s *Settings) string {
		return allowed(s.SRSDays >= 7 && s.SRSDays <= 365, "7 to 365")
	}},
	{"srs.domain", "domain of ours that forwarded mail of strangers is sent from; nothing for that of the address that forwards", func(s *Settings) any { return &s.SRSDomain }, func(s *Settings) string {
		_, err := address.ParseDomain(s.SRSDomain)
		return allowed(s.SRSDomain == "" || err == nil, "a domain of this server, or nothing")
	}},
	{"tls.policies", "how connections to other servers must be protected, by the recipient's domain: entries like bank.example dane-only, separated by ; (see waxwing tls policy)", func(s *Settings) any { return &s.TLSPolicies }, func(s *Settings) string {
		_, err := tlspolicy.Parse(s.TLSPolicies)
		return allowed(err == nil, "entries of a domain and a level (auto, none, may, encrypt, verify, secure, dane, dane-only), separated by ;")
	}},
	{"tls.reports", "whether domains that ask for it get a daily report about TLS with their servers (RFC 8460): on or off", func(s *Settings) any { return &s.TLSReports }, func(s *Settings) string {
		return allowed(s.TLSReports == "on" || s.TLSReports == "off", "on or off")
	}},
	{"trace.days", "days for which it is kept what became of each message; 0: for ever", func(s *Settings) any { return &s.TraceDays }, func(s *Settings) string { return someDays(s.TraceDays) }},
	{"trace.subjects", "what traces have of subjects: off, hash (equal subjects are seen to be equal) or full", func(s *Settings) any { return &s.TraceSubjects }, func(s *Settings) string {
		return allowed(s.TraceSubjects == "off" || s.TraceSubjects == "hash" || s.TraceSubjects == "full", "off, hash or full")
	}},
	{"submission.encoding", "form of users' messages for other servers: as-is, or ascii (8-bit parts get a transfer encoding when they come in, unless they are signed)", func(s *Settings) any { return &s.SubmissionEncoding }, func(s *Settings) string {
		return allowed(s.SubmissionEncoding == "as-is" || s.SubmissionEncoding == "ascii", "as-is or ascii")
	}},
	{"undelete.days", "days for which an administrator can restore what was deleted; 0: it goes at once", func(s *Settings) any { return &s.UndeleteDays }, func(s *Settings) string { return someDays(s.UndeleteDays) }},
	{"undelete.erase_days", "days within which what can't be restored any more is overwritten on the disk: 1 to 365", func(s *Settings) any { return &s.EraseDays }, func(s *Settings) string {
		return allowed(s.EraseDays >= 1 && s.EraseDays <= 365, "1 to 365")
	}},
}

// maxDays bounds settings in days.
const maxDays = 36_500

// maxBackups bounds the settings of what is kept.
const maxBackups = 10_000

func someBackups(n int) string { return allowed(n >= 0 && n <= maxBackups, "0 to 10000") }

func fullPath(name string) string {
	return allowed(name == "" || filepath.IsAbs(name) && !strings.ContainsRune(name, 0), "the full path of a file")
}

func someDays(n int) string { return allowed(n >= 0 && n <= maxDays, "0 to 36500") }

// Policy is what the settings say about the keeping of mail.
func (s Settings) Policy() store.Policy {
	const day = 24 * time.Hour
	return store.Policy{
		Undelete: time.Duration(s.UndeleteDays) * day, Erase: time.Duration(s.EraseDays) * day, Tombstones: time.Duration(s.TombstoneDays) * day,
		Trash: time.Duration(s.TrashDays) * day, Junk: time.Duration(s.JunkDays) * day,
	}
}

// DefaultSettings are the settings of a new server.
func DefaultSettings() Settings {
	return Settings{
		MessageSize: 50 << 20, Recipients: 1000, HoldDays: 30, Priority: 3, SubmissionEncoding: "as-is", QuotaBytes: 10 << 30, SubaddressSeparator: "+", Language: "en",
		SentFolder: "Sent", DraftsFolder: "Drafts", TrashFolder: "Trash", JunkFolder: "Junk", ArchiveFolder: "Archive",
		SuppressFailures: 3, SuppressDays: 30, SuppressForDays: 90,
		UndeleteDays: 14, EraseDays: 7, TombstoneDays: 90, ScrubRate: 2 << 20, TLSReports: "on", SRSDays: 21, TraceDays: 30, TraceSubjects: "off",
		RelayKnown: 360, RelayUnknown: 15,
		Guard: defaultGuard(), Backup: BackupSettings{KeepDaily: 14, KeepWeekly: 8, KeepMonthly: 12, TestDays: 7},
		Stranger:     defaultStranger,
		SieveScripts: 50, SieveScriptSize: 256 << 10, SieveRedirects: 4,
	}
}

func allowed(ok bool, want string) string {
	if ok {
		return ""
	}
	return want
}

func between(n, least, most int, want string) string { return allowed(n >= least && n <= most, want) }

func oneOf(value string, known ...string) string {
	return allowed(slices.Contains(known, value), strings.Join(known, ", "))
}

func folderName(n string) string {
	ok := n != "" && len(n) <= 100 && utf8.ValidString(n) && strings.TrimSpace(n) == n && !strings.EqualFold(n, "INBOX") &&
		!strings.ContainsFunc(n, func(r rune) bool { return unicode.IsControl(r) || strings.ContainsRune(`/\*%`, r) })
	return allowed(ok, `a name of 1 to 100 octets, not INBOX, without / \ * % and controls, no space around it`)
}

// mailboxes are those that a new account begins with.
func (s *Settings) mailboxes() []store.MailboxSpec {
	return []store.MailboxSpec{
		{Name: "INBOX", Role: store.RoleInbox, Subscribed: true},
		{Name: s.DraftsFolder, Role: store.RoleDrafts, Subscribed: true},
		{Name: s.SentFolder, Role: store.RoleSent, Subscribed: true},
		{Name: s.TrashFolder, Role: store.RoleTrash, Subscribed: true},
		{Name: s.JunkFolder, Role: store.RoleJunk, Subscribed: true},
		{Name: s.ArchiveFolder, Role: store.RoleArchive, Subscribed: true},
	}
}

// check holds one setting after another, and that the folders have different names.
func (s *Settings) check() error {
	for _, def := range settingDefs {
		if want := def.check(s); want != "" {
			return &FieldError{Field: def.name, Value: fmt.Sprint(value(def.field(s))), Want: want}
		}
	}
	seen := map[string]bool{}
	for _, m := range s.mailboxes() {
		name := strings.ToLower(m.Name)
		if seen[name] {
			return &FieldError{Field: "folder." + string(m.Role), Value: m.Name, Want: "a name that no other folder has"}
		}
		seen[name] = true
	}
	return nil
}

// value is what a pointer to a setting's field points to.
func value(p any) any {
	switch p := p.(type) {
	case *string:
		return *p
	case *int64:
		return *p
	case *int:
		return *p
	case *[]string:
		return *p
	}
	return p
}

func findDef(name string) (settingDef, bool) {
	i, ok := slices.BinarySearchFunc(settingDefs, name, func(d settingDef, n string) int { return cmp.Compare(d.name, n) })
	if !ok {
		return settingDef{}, false
	}
	return settingDefs[i], true
}

// set puts a JSON value into the field of a setting.
func (s *Settings) set(name string, raw []byte) error {
	def, ok := findDef(name)
	if !ok {
		return &FieldError{Field: name, Want: "no such setting"}
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	if list, ok := def.field(s).(*[]string); ok {
		*list = nil // older settings share what it holds
	}
	if bytes.Equal(bytes.TrimSpace(raw), []byte("null")) || dec.Decode(def.field(s)) != nil || dec.More() {
		return &FieldError{Field: name, Value: string(raw), Want: def.doc}
	}
	return nil
}

// Settings gives the settings as they are now, from memory.
func (d *Directory) Settings() Settings { return *d.settings.Load() }

// List describes all settings by name.
func (s Settings) List() []Setting {
	standard := DefaultSettings()
	list := make([]Setting, 0, len(settingDefs))
	for _, def := range settingDefs {
		// Strings and integers always marshal.
		dflt, _ := json.Marshal(value(def.field(&standard)))
		val, _ := json.Marshal(value(def.field(&s)))
		list = append(list, Setting{
			Name: def.name, Doc: def.doc, Default: dflt, Value: val, Changed: !bytes.Equal(dflt, val),
		})
	}
	return list
}

// ChangeSettings sets settings by name to JSON values; nil sets back to the default. All are checked together and
// committed as one version. base is the version that the change is based on (ErrConflict when there is a newer one), -1
// for any; actor is who asked, for the history. A change that changes nothing makes no version.
func (d *Directory) ChangeSettings(ctx context.Context, base int64, actor string, changes map[string]json.RawMessage) (Settings, error) {
	d.reload.Lock()
	defer d.reload.Unlock()
	now := d.Settings()
	if base >= 0 && base != now.Version {
		return now, wrap("change", "settings", store.ErrDirectoryConflict)
	}
	next, err := now.with(changes)
	if err != nil {
		return now, err
	}
	rows := difference(now, next)
	if len(rows) == 0 {
		return now, nil
	}
	if _, err := d.commit(WithActor(ctx, actor), store.DirectoryEdit{Base: base, Settings: rows}, &next); err != nil {
		return now, wrap("change", "settings", err)
	}
	return d.Settings(), nil
}

// with gives the settings with changes; nil is back to the default.
func (s Settings) with(changes map[string]json.RawMessage) (Settings, error) {
	next, standard := s, DefaultSettings()
	for _, name := range slices.Sorted(maps.Keys(changes)) {
		raw := changes[name]
		if raw == nil {
			def, ok := findDef(name)
			if !ok {
				return s, &FieldError{Field: name, Want: "no such setting"}
			}
			raw, _ = json.Marshal(value(def.field(&standard)))
		}
		if err := next.set(name, raw); err != nil {
			return s, err
		}
	}
	return next, next.check()
}

// difference lists what changes from one to the other.
func difference(from, to Settings) []store.SettingChange {
	a, b := from.List(), to.List()
	var rows []store.SettingChange
	for i := range a {
		if bytes.Equal(a[i].Value, b[i].Value) {
			continue
		}
		c := store.SettingChange{Name: b[i].Name}
		if b[i].Changed {
			text := string(b[i].Value)
			c.Value = &text
		}
		rows = append(rows, c)
	}
	return rows
}

// SettingsAt gives the settings as they were at a version; ErrNotFound when there was none such.
func (d *Directory) SettingsAt(ctx context.Context, version int64) (Settings, error) {
	if version < 0 || version > d.Settings().Version {
		return Settings{}, wrap("find settings of version", fmt.Sprint(version), store.ErrNotFound)
	}
	s := DefaultSettings()
	if version == 0 {
		return s, nil
	}
	history, err := d.repo.SettingsHistory(ctx, version, 0)
	if err != nil {
		return Settings{}, wrap("read history of", "settings", err)
	}
	done := map[string]bool{}
	for _, c := range history { // newest first: the first line of each name counts
		if done[c.Name] {
			continue
		}
		done[c.Name] = true
		if c.Value != nil && isRule(c.Name) {
			if err := s.takeRule(c.Name, *c.Value); err != nil {
				d.log.Warn("rule of an older version is passed over", "name", c.Name, "version", c.Version, "error", err)
			}
			continue
		}
		if c.Value == nil || strings.Contains(c.Name, "/") { // a line of the directory
			continue
		}
		if err := s.set(c.Name, []byte(*c.Value)); err != nil {
			d.log.Warn("setting of an older version is passed over", "name", c.Name, "version", c.Version, "error", err)
		}
	}
	s.sortRules()
	s.Version = version
	return s, nil
}

// SettingsHistory lists changes, newest first: those of the version before and earlier (0: from the newest), at most limit.
func (d *Directory) SettingsHistory(ctx context.Context, before int64, limit int) ([]store.SettingChange, error) {
	if before > 0 {
		before--
		if before == 0 {
			return nil, nil
		}
	}
	list, err := d.repo.SettingsHistory(ctx, before, limit)
	return list, wrap("read history of", "settings", err)
}

func (d *Directory) reloadSettings(ctx context.Context) error {
	d.reload.Lock()
	defer d.reload.Unlock()
	return d.readSettings(ctx)
}

// readSettings is reloadSettings for who holds d.reload.
func (d *Directory) readSettings(ctx context.Context) error {
	version, rows, err := d.repo.Settings(ctx)
	if err != nil {
		return wrap("read", "settings", err)
	}
	s := DefaultSettings()
	for _, r := range rows {
		if isRule(r.Name) {
			if err := s.takeRule(r.Name, r.Value); err != nil {
				d.log.Error("rule can't be used", "name", r.Name, "value", r.Value, "error", err)
			}
			continue
		}
		// A row that this version doesn't know or that can't be read leaves the default and harms nothing else.
		before := s
		if err := s.set(r.Name, []byte(r.Value)); err != nil || s.check() != nil {
			s = before
			d.log.Warn("setting can't be used, its default stays", "name", r.Name, "value", r.Value)
		}
	}
	s.sortRules()
	s.Version = version
	d.settings.Store(&s)
	d.tell(s)
	return nil
}
