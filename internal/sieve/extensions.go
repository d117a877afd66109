package sieve

import "slices"

// extensions are what scripts may require, in the order in which they are told.
var extensions = []string{
	"fileinto",                   // RFC 5228, section 4.1
	"envelope",                   // RFC 5228, section 5.4
	"encoded-character",          // RFC 5228, section 2.4.2.4
	"comparator-i;octet",         // RFC 4790
	"comparator-i;ascii-casemap", // RFC 4790
	"comparator-i;ascii-numeric", // RFC 4790
	"body",                       // RFC 5173
	"copy",                       // RFC 3894
	"date",                       // RFC 5260
	"duplicate",                  // RFC 7352
	"editheader",                 // RFC 5293
	"enotify",                    // RFC 5435
	"environment",                // RFC 5183
	"ereject",                    // RFC 5429
	"extracttext",                // RFC 5703, section 7
	"foreverypart",               // RFC 5703, section 3
	"ihave",                      // RFC 5463
	"imap4flags",                 // RFC 5232
	"include",                    // RFC 6609
	"index",                      // RFC 5260, section 6
	"mailbox",                    // RFC 5490, section 3
	"mime",                       // RFC 5703, section 4
	"regex",                      // draft-ietf-sieve-regex
	"reject",                     // RFC 5429
	"relational",                 // RFC 5231
	"spamtest",                   // RFC 5235
	"spamtestplus",               // RFC 5235
	"special-use",                // RFC 8579
	"subaddress",                 // RFC 5233
	"vacation",                   // RFC 5230
	"vacation-seconds",           // RFC 6131
	"variables",                  // RFC 5229
	"virustest",                  // RFC 5235
}

// implied are extensions that others bring along.
var implied = map[string][]string{
	"spamtestplus":     {"spamtest"},
	"vacation-seconds": {"vacation"},
}

// Extensions lists what scripts may require.
func Extensions() []string { return slices.Clone(extensions) }

// NotifyMethods lists the schemes that notify can send by.
func NotifyMethods() []string { return []string{"mailto"} }

func (c *compiler) offers(ext string) bool {
	return slices.Contains(extensions, ext) && !slices.Contains(c.opt.Without, ext)
}

// Tags that several tests have.
var (
	addressTags = []tag{
		{name: "all", group: "part"},
		{name: "localpart", group: "part"},
		{name: "domain", group: "part"},
		{name: "user", ext: "subaddress", group: "part"},
		{name: "detail", ext: "subaddress", group: "part"},
	}
	indexTags = []tag{{name: "index", ext: "index", kind: kindNumber}, {name: "last", ext: "index"}}
	mimeTags  = []tag{{name: "mime", ext: "mime"}, {name: "anychild", ext: "mime"}}
	mimeForms = []tag{
		{name: "type", ext: "mime", group: "mime"},
		{name: "subtype", ext: "mime", group: "mime"},
		{name: "contenttype", ext: "mime", group: "mime"},
		{name: "param", ext: "mime", group: "mime", kind: kindList},
	}
	modifiers = []tag{
		{name: "lower", group: "case"},
		{name: "upper", group: "case"},
		{name: "lowerfirst", group: "first"},
		{name: "upperfirst", group: "first"},
		{name: "quotewildcard", group: "quote"},
		{name: "quoteregex", ext: "regex", group: "quote"},
		{name: "encodeurl", ext: "enotify"},
		{name: "length"},
	}
	zoneTags = []tag{{name: "zone", group: "zone", kind: kindString}, {name: "originalzone", group: "zone"}}
)

func tags(lists ...[]tag) []tag { return slices.Concat(lists...) }

func list(k ...kind) []kind { return k }

// commands and tests are the language; init fills them, as what they compile to refers to them.
var commands, tests map[string]*spec

func init() {
	commands = map[string]*spec{
		"require":  {args: list(kindList), action: compileRequire},
		"stop":     {action: compileStop},
		"keep":     {tags: []tag{flagsTag}, action: compileKeep},
		"discard":  {action: compileDiscard},
		"redirect": {tags: []tag{{name: "copy", ext: "copy"}}, args: list(kindString), action: compileRedirect},
		"fileinto": {ext: "fileinto", tags: []tag{
			{name: "copy", ext: "copy"},
			{name: "create", ext: "mailbox"},
			flagsTag,
			{name: "mailboxid", ext: "mailboxid", kind: kindString},
			{name: "specialuse", ext: "special-use", kind: kindString},
		}, args: list(kindString), action: compileFileInto},
		"reject":  {ext: "reject", args: list(kindString), action: compileReject},
		"ereject": {ext: "ereject", args: list(kindString), action: compileReject},
		"error":   {ext: "ihave", args: list(kindString), action: compileError},

		"set":        {ext: "variables", tags: modifiers, args: list(kindString, kindString), action: compileSet},
		"setflag":    {ext: "imap4flags", args: list(kindString, kindList), spare: 1, action: flagCommand(setFlags)},
		"addflag":    {ext: "imap4flags", args: list(kindString, kindList), spare: 1, action: flagCommand(addFlags)},
		"removeflag": {ext: "imap4flags", args: list(kindString, kindList), spare: 1, action: flagCommand(removeFlags)},

		"addheader": {ext: "editheader", tags: []tag{{name: "last"}}, args: list(kindString, kindString), action: compileAddHeader},
		"deleteheader": {
			ext:  "editheader",
			tags: tags(matchTags, []tag{{name: "index", kind: kindNumber}, {name: "last"}}),
			args: list(kindString, kindList), spare: -1, action: compileDeleteHeader,
		},

		"vacation": {ext: "vacation", tags: []tag{
			{name: "days", group: "time", kind: kindNumber},
			{name: "seconds", ext: "vacation-seconds", group: "time", kind: kindNumber},
			{name: "subject", kind: kindString},
			{name: "from", kind: kindString},
			{name: "addresses", kind: kindList},
			{name: "mime"},
			{name: "handle", kind: kindString},
		}, args: list(kindString), action: compileVacation},
		"notify": {ext: "enotify", tags: []tag{
			{name: "from", kind: kindString},
			{name: "importance", kind: kindString},
			{name: "options", kind: kindList},
			{name: "message", kind: kindString},
		}, args: list(kindString), action: compileNotify},

		"include": {ext: "include", tags: []tag{
			{name: "personal", group: "where"}, {name: "global", group: "where"}, {name: "once"}, {name: "optional"},
		}, args: list(kindString), action: compileInclude},
		"return": {ext: "include", action: func(*compiler, *call) (stmt, error) {
			return func(*run) error { return errReturn }, nil
		}},
		"global": {ext: "include", args: list(kindList), action: compileGlobal},

		"foreverypart": {ext: "foreverypart", tags: []tag{{name: "name", kind: kindString}}, block: true, action: compileForEveryPart},
		"break":        {ext: "foreverypart", tags: []tag{{name: "name", kind: kindString}}, action: compileBreak},
		"extracttext": {
			ext: "extracttext", tags: tags(modifiers, []tag{{name: "first", kind: kindNumber}}),
			args: list(kindString), action: compileExtractText,
		},
	}
	tests = map[string]*spec{
		"true":  {test: func(*compiler, *call) (test, error) { return func(*run) bool { return true }, nil }},
		"false": {test: func(*compiler, *call) (test, error) { return func(*run) bool { return false }, nil }},
		"not":   {tests: 1, test: compileNot},
		"allof": {tests: many, test: compileOf(false)},
		"anyof": {tests: many, test: compileOf(true)},
		"header": {
			tags: tags(matchTags, indexTags, mimeTags, mimeForms),
			args: list(kindList, kindList), test: compileHeader,
		},
		"address":  {tags: tags(matchTags, addressTags, indexTags, mimeTags), args: list(kindList, kindList), test: compileAddress},
		"envelope": {ext: "envelope", tags: tags(matchTags, addressTags), args: list(kindList, kindList), test: compileEnvelope},
		"exists":   {tags: mimeTags, args: list(kindList), test: compileExists},
		"size":     {tags: []tag{{name: "over", group: "size"}, {name: "under", group: "size"}}, args: list(kindNumber), test: compileSize},
		"string":   {ext: "variables", tags: matchTags, args: list(kindList, kindList), test: compileString},
		"hasflag":  {ext: "imap4flags", tags: matchTags, args: list(kindList, kindList), spare: 1, test: compileHasFlag},
		"body": {ext: "body", tags: tags(matchTags, []tag{
			{name: "raw", group: "body"}, {name: "text", group: "body"}, {name: "content", group: "body", kind: kindList},
		}), args: list(kindList), test: compileBody},
		"date":        {ext: "date", tags: tags(matchTags, zoneTags, indexTags), args: list(kindString, kindString, kindList), test: compileDate},
		"currentdate": {ext: "date", tags: tags(matchTags, zoneTags[:1]), args: list(kindString, kindList), test: compileCurrentDate},
		"ihave":       {ext: "ihave", args: list(kindList), test: compileIHave},

		"mailboxexists":     {ext: "mailbox", args: list(kindList), test: hostTest(Host.MailboxExists)},
		"specialuse_exists": {ext: "special-use", args: list(kindString, kindList), spare: 1, test: compileSpecialUse},
		"environment":       {ext: "environment", tags: matchTags, args: list(kindString, kindList), test: compileEnvironment},
		"spamtest":          {ext: "spamtest", tags: tags(matchTags, []tag{{name: "percent", ext: "spamtestplus"}}), args: list(kindString), test: compileSpamTest},
		"virustest":         {ext: "virustest", tags: matchTags, args: list(kindString), test: compileVirusTest},
		"duplicate": {ext: "duplicate", tags: []tag{
			{name: "handle", kind: kindString},
			{name: "header", group: "id", kind: kindString},
			{name: "uniqueid", group: "id", kind: kindString},
			{name: "seconds", kind: kindNumber},
			{name: "last"},
		}, test: compileDuplicate},
		"valid_notify_method": {ext: "enotify", args: list(kindList), test: compileValidMethod},
		"notify_method_capability": {
			ext: "enotify", tags: matchTags, args: list(kindString, kindString, kindList), test: compileMethodCapability,
		},
	}
}
