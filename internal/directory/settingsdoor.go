package directory

import (
	"time"

	"waxwing/internal/guard/dnslist"
)

// StrangerSettings say how those are judged who bring mail on port 25, and what protects mailboxes from too much of it.
type StrangerSettings struct {
	DNSLists      []string // as dnslist.Parse reads them
	RefuseScore   int      // 0: nobody is refused for it
	GreylistScore int
	Hello         string // "off", "weigh", "refuse"
	Reverse       string // "off", "weigh"
	Sender        string // "off", "definite", "on"
	ProbingLimit  int    // unknown recipients of one address; 0: none

	Greylist      string // "off", "suspicious", "all"
	GreylistDelay int    // seconds
	GreylistDays  int    // for which a network that passed is known

	SurgeAction  string // "folder", "defer", "off"
	SurgeLeast   int    // messages in ten minutes that are never too many
	SurgeFactor  int    // times as many as usual that are too many
	SurgeFolder  string // names of the folder, by language of the account
	SurgeChinese string
}

// Lists are the DNS lists of the settings.
func (s StrangerSettings) Lists() []dnslist.List {
	lists, err := dnslist.ParseAll(s.DNSLists)
	if err != nil {
		return nil // check has let none through that can't be read
	}
	return lists
}

// Delay is how long a greylisted stranger waits, Known for how long a network that passed is known.
func (s StrangerSettings) Delay() time.Duration { return time.Duration(s.GreylistDelay) * time.Second }

// Known is for how long a network that passed greylisting is known.
func (s StrangerSettings) Known() time.Duration {
	return time.Duration(s.GreylistDays) * 24 * time.Hour
}

var defaultStranger = StrangerSettings{
	DNSLists: []string{}, RefuseScore: 10, GreylistScore: 3, Hello: "refuse", Reverse: "weigh", Sender: "on", ProbingLimit: 20,
	Greylist: "suspicious", GreylistDelay: 300, GreylistDays: 36,
	SurgeAction: "folder", SurgeLeast: 40, SurgeFactor: 8, SurgeFolder: "Surge", SurgeChinese: "突发邮件",
}

// strangerDefs are the settings of StrangerSettings.
var strangerDefs = []settingDef{
	{"greylist.days", "days for which a network that has come a second time is not greylisted again: 1 to 365", func(s *Settings) any { return &s.Stranger.GreylistDays }, func(s *Settings) string {
		return between(s.Stranger.GreylistDays, 1, 365, "1 to 365")
	}},
	{"greylist.delay", "seconds after which a greylisted message is taken when it comes again: 1 to 86400", func(s *Settings) any { return &s.Stranger.GreylistDelay }, func(s *Settings) string {
		return between(s.Stranger.GreylistDelay, 1, 86_400, "1 to 86400")
	}},
	{"greylist.mode", "who must come a second time: off (nobody), suspicious (strangers with stranger.greylist_score), all (all strangers)", func(s *Settings) any { return &s.Stranger.Greylist }, func(s *Settings) string {
		return oneOf(s.Stranger.Greylist, "off", "suspicious", "all")
	}},
	{"stranger.dns_lists", "block and allow lists in the DNS, as `waxwing dnslist` writes them; none are asked by default", func(s *Settings) any { return &s.Stranger.DNSLists }, func(s *Settings) string {
		if _, err := dnslist.ParseAll(s.Stranger.DNSLists); err != nil {
			return err.Error()
		}
		return ""
	}},
	{"stranger.greylist_score", "score from which a stranger counts as suspicious: 1 to 1000", func(s *Settings) any { return &s.Stranger.GreylistScore }, func(s *Settings) string {
		return between(s.Stranger.GreylistScore, 1, 1000, "1 to 1000")
	}},
	{"stranger.helo", "what the name in HELO does: off (nothing), weigh (it counts in the score), refuse (so it does, and who calls itself by a name of this server is refused)", func(s *Settings) any { return &s.Stranger.Hello }, func(s *Settings) string {
		return oneOf(s.Stranger.Hello, "off", "weigh", "refuse")
	}},
	{"stranger.probing_limit", "unknown recipients lately (half of them are forgotten each hour) from which on a client's recipients are all deferred: 5 to 10000, 0: never", func(s *Settings) any { return &s.Stranger.ProbingLimit }, func(s *Settings) string {
		return allowed(s.Stranger.ProbingLimit == 0 || s.Stranger.ProbingLimit >= 5 && s.Stranger.ProbingLimit <= 10_000, "0 (never) or 5 to 10000")
	}},
	{"stranger.refuse_score", "score from which a stranger's mail is refused: 1 to 1000, 0: never", func(s *Settings) any { return &s.Stranger.RefuseScore }, func(s *Settings) string {
		return between(s.Stranger.RefuseScore, 0, 1000, "0 (never) to 1000")
	}},
	{"stranger.reverse_dns", "what a missing or unconfirmed name of the client's address does: off (nothing), weigh (it counts in the score)", func(s *Settings) any { return &s.Stranger.Reverse }, func(s *Settings) string {
		return oneOf(s.Stranger.Reverse, "off", "weigh")
	}},
	{"stranger.sender_domain", "what becomes of senders whose domain takes no mail: off (nothing), definite (refused, unless the DNS can't say), on (the same, and deferred while the DNS can't say)", func(s *Settings) any { return &s.Stranger.Sender }, func(s *Settings) string {
		return oneOf(s.Stranger.Sender, "off", "definite", "on")
	}},
	{"surge.action", "what becomes of the surplus of a mail bomb: folder (into a folder of its own), defer (451), off (nothing); accounts may choose for themselves", func(s *Settings) any { return &s.Stranger.SurgeAction }, func(s *Settings) string {
		return oneOf(s.Stranger.SurgeAction, "folder", "defer", "off")
	}},
	{"surge.factor", "times as many messages as usual in ten minutes that are a surge: 2 to 1000", func(s *Settings) any { return &s.Stranger.SurgeFactor }, func(s *Settings) string {
		return between(s.Stranger.SurgeFactor, 2, 1000, "2 to 1000")
	}},
	{"surge.folder", "name of the folder for the surplus of a mail bomb", func(s *Settings) any { return &s.Stranger.SurgeFolder }, func(s *Settings) string { return folderName(s.Stranger.SurgeFolder) }},
	{"surge.folder_zh", "the same for accounts whose language is Chinese", func(s *Settings) any { return &s.Stranger.SurgeChinese }, func(s *Settings) string { return folderName(s.Stranger.SurgeChinese) }},
	{"surge.least", "messages from strangers in ten minutes that are never a surge, however few are usual: 5 to 100000", func(s *Settings) any { return &s.Stranger.SurgeLeast }, func(s *Settings) string {
		return between(s.Stranger.SurgeLeast, 5, 100_000, "5 to 100000")
	}},
}
