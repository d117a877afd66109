package bounce

import "waxwing/internal/smtp"

// byCode sorts by the enhanced code, RFC 3463 with the registry of RFC 5248. sure says that words would add nothing: codes
// that servers use for anything (x.0.0, x.7.0, x.7.1) are not.
func byCode(e smtp.Enhanced) (c Category, sure bool) {
	if known, ok := codes[[2]int{e.Subject, e.Detail}]; ok && e.Class != 0 {
		return known.category, known.sure
	}
	if e.Class == 0 {
		return None, false
	}
	switch e.Subject {
	case 1:
		return NoMailbox, false
	case 2:
		return Disabled, false
	case 3:
		return Busy, false
	case 4:
		return Network, false
	case 5:
		return Protocol, false
	case 6:
		return Content, false
	case 7:
		return Policy, false
	}
	return None, false
}

// codes is subject and detail of an enhanced code.
var codes = map[[2]int]struct {
	category Category
	sure     bool
}{
	{1, 0}: {NoMailbox, false}, {1, 1}: {NoMailbox, false}, {1, 2}: {NoDomain, false}, {1, 3}: {NoMailbox, false}, {1, 4}: {NoMailbox, false},
	{1, 6}: {Moved, true}, {1, 7}: {Sender, true}, {1, 8}: {Sender, true}, {1, 10}: {NoDomain, true},
	{2, 0}: {Disabled, false}, {2, 1}: {Disabled, false}, {2, 2}: {Full, true}, {2, 3}: {Size, true}, {2, 4}: {Policy, false},
	{3, 1}: {Busy, false}, {3, 2}: {Busy, false}, {3, 3}: {Protocol, false}, {3, 4}: {Size, true}, {3, 5}: {Protocol, false}, {3, 6}: {Protocol, false},
	{4, 1}: {Network, false}, {4, 2}: {Network, false}, {4, 3}: {DNS, false}, {4, 4}: {DNS, false}, {4, 5}: {Busy, false}, {4, 6}: {Loop, true}, {4, 7}: {Expired, false},
	{5, 0}: {Protocol, false}, {5, 1}: {Protocol, false}, {5, 2}: {Protocol, false}, {5, 3}: {RateLimit, false}, {5, 4}: {Protocol, false},
	{6, 0}: {Content, false}, {6, 1}: {Content, false}, {6, 2}: {Content, false}, {6, 3}: {Content, false}, {6, 6}: {Content, false}, {6, 7}: {Content, true},
	{7, 4}: {TLS, false}, {7, 10}: {TLS, true}, {7, 20}: {Auth, true}, {7, 21}: {Auth, true}, {7, 22}: {Auth, true}, {7, 23}: {Auth, true}, {7, 24}: {Auth, true},
	{7, 25}: {Auth, true}, {7, 26}: {Auth, true}, {7, 27}: {Sender, true}, {7, 28}: {RateLimit, true}, {7, 29}: {Auth, true}, {7, 30}: {TLS, true},
}

// byReply sorts by the reply code alone, when nothing else is known.
var byReply = map[int]Category{
	421: Busy, 432: Busy, 450: Busy, 451: Busy, 452: Busy, 454: TLS, 455: Protocol, 500: Protocol, 501: Protocol, 502: Protocol, 503: Protocol, 504: Protocol,
	521: NoDomain, 530: Relay, 535: Relay, 550: NoMailbox, 551: Moved, 552: Full, 553: NoMailbox, 554: Policy, 555: Protocol, 556: NoDomain,
}

// rules is the table, read from the top: those of a provider before the enhanced code, the others behind it.
var rules = []rule{
	// Google.
	{provider: "google", category: Full, any: []string{"out of storage space", "over quota", "inbox is out of storage"}},
	{provider: "google", category: Disabled, any: []string{"account that you tried to reach is disabled", "is inactive"}},
	{provider: "google", category: NoMailbox, any: []string{"does not exist"}, not: []string{"domain"}},
	{provider: "google", category: RateLimit, any: []string{"unusual rate", "receiving mail too quickly", "receiving mail at a rate", "rate limited", "limit exceeded"}},
	{provider: "google", category: Auth, any: []string{"unauthenticated", "spf", "dkim", "dmarc", "ptr record", "guidelines for ipv6"}},
	{provider: "google", category: Reputation, any: []string{"low reputation", "suspicious due to the", "ip address has been blocked", "very low"}},
	{provider: "google", category: Spam, any: []string{"likely unsolicited", "unsolicited mail", "spam"}},
	{provider: "google", category: Virus, any: []string{"virus", "security issue", "potential security"}},
	{provider: "google", category: TLS, any: []string{"tls"}, codes: []int{421, 454, 530, 550}},

	// Microsoft.
	{provider: "microsoft", category: NoMailbox, any: []string{"recipientnotfound", "recipient not found", "mailbox unavailable", "5.1.10", "user unknown", "does not like recipient"}},
	{provider: "microsoft", category: RateLimit, any: []string{"exceeded the rate", "rate limit", "throttl", "too many messages", "4.7.500", "server busy"}},
	{provider: "microsoft", category: Reputation, any: []string{"s3140", "s3150", "s77719", "block list", "blocklist", "banned sending ip", "part of their network is on", "5.7.606", "5.7.511", "poor reputation"}},
	{provider: "microsoft", category: Full, any: []string{"quota exceeded", "mailbox full", "storagequota"}},
	{provider: "microsoft", category: Relay, any: []string{"relay access denied", "tenantattribution", "unable to relay"}},
	{provider: "microsoft", category: Auth, any: []string{"dmarc", "spf", "dkim", "5.7.515", "ptr"}},
	{provider: "microsoft", category: Policy, any: []string{"not authorized to send to the recipient", "restricted", "transport rules", "5.7.124", "5.7.133", "5.7.129"}},
	{provider: "microsoft", category: Loop, any: []string{"hop count", "5.4.14"}},

	// Yahoo and AOL name their rules by short codes in brackets.
	{provider: "yahoo", category: RateLimit, any: []string{"[ts0", "[tss0", "user complaints", "unexpected volume", "deferred due to"}, codes: []int{421, 451}},
	{provider: "yahoo", category: Reputation, any: []string{"[ts03", "[bl2", "permanently deferred", "[iprep", "on spamhaus"}},
	{provider: "yahoo", category: NoMailbox, any: []string{"doesn't have a yahoo", "no such user", "mailbox not found", "user is not found", "invalid recipient"}},
	{provider: "yahoo", category: Disabled, any: []string{"account is disabled", "not able to receive", "inactive"}},
	{provider: "yahoo", category: Auth, any: []string{"dmarc", "authentication checks", "domain's policy"}},
	{provider: "yahoo", category: Policy, any: []string{"not accepted for policy reasons", "policy reasons"}},
	{provider: "yahoo", category: Full, any: []string{"over quota", "mailbox is full"}},

	// Apple.
	{provider: "apple", category: Full, any: []string{"over quota", "mailbox full"}},
	{provider: "apple", category: Policy, any: []string{"local policy", "[cs01]", "[hc"}, not: []string{"reputation"}},
	{provider: "apple", category: Disabled, any: []string{"inactive"}},

	// Tencent, NetEase and other Chinese services.
	{provider: "tencent", category: NoMailbox, any: []string{"mailbox not found", "mailbox unavailable", "no such user"}},
	{provider: "tencent", category: RateLimit, any: []string{"frequency limited", "frequency is limited", "connection frequency", "sending frequency", "too many connection"}},
	{provider: "tencent", category: Full, any: []string{"out of storage", "user's mailbox is full"}},
	{provider: "tencent", category: Reputation, any: []string{"ip is in", "black list", "ip address is denied", "bad reputation"}},
	{provider: "tencent", category: Spam, any: []string{"suspected to be spam", "contains spam", "suspected spam", "is spam", "content is restricted"}},
	{provider: "tencent", category: Auth, any: []string{"spf", "dkim", "dmarc"}},
	{provider: "netease", category: RateLimit, any: []string{"mi:cel", "mi:dmc", "mi:dma", "mi:ccl", "rp:cel", "rp:qrc", "rp:ccl", "mi:rbl", "rp:trc", "mi:nhd"}},
	{provider: "netease", category: NoMailbox, any: []string{"user not found", "invalid user", "no such user"}},
	{provider: "netease", category: Full, any: []string{"mi:fls", "user over quota", "mailbox full", "over limit"}},
	{provider: "netease", category: Disabled, any: []string{"user has been suspended", "user locked", "user suspended"}},
	{provider: "netease", category: Spam, any: []string{"dt:spm", "mi:spf rubbish", "hl:spm", "dt:sum"}},
	{provider: "netease", category: Auth, any: []string{"mi:spf", "mi:dkm", "mi:dmarc"}},
	{provider: "netease", category: Reputation, any: []string{"mi:spb", "mi:sfq", "ip in blacklist", "hl:irc"}},
	{provider: "alibaba", category: RateLimit, any: []string{"too frequently", "frequency", "flow limit", "reject by rcpt limit"}},
	{provider: "sina", category: RateLimit, any: []string{"too many", "ip limit"}},

	// Others with words of their own.
	{provider: "mailru", category: Spam, any: []string{"spam message rejected", "spam message discarded"}},
	{provider: "mailru", category: RateLimit, any: []string{"ratelimit", "try again later"}, codes: []int{421, 451}},
	{provider: "yandex", category: Spam, any: []string{"suspicion of spam", "policy rejection"}},
	{provider: "1and1", category: RateLimit, any: []string{"sending rate", "too many connections", "temporarily deferred"}},
	{provider: "1and1", category: Reputation, any: []string{"ip address is listed", "bad dns ptr", "reputation", "blacklist"}},
	{provider: "telekom", category: Reputation, any: []string{"ip=", "not allowed to send", "rbl"}, codes: []int{554}},
	{provider: "comcast", category: Reputation, any: []string{"bl0000", "rl0000", "blocked for spam"}},
	{provider: "comcast", category: RateLimit, any: []string{"too many sessions", "throttled"}},
	{provider: "orange", category: RateLimit, any: []string{"too many connections", "ofr_1", "ofr_2", "ofr_3"}, codes: []int{421}},
	{provider: "orange", category: Reputation, any: []string{"ofr_5", "ofr_0"}},
	{provider: "proofpoint", category: Reputation, any: []string{"blocked - see", "dynamic reputation", "proofpoint dynamic"}},
	{provider: "mimecast", category: Reputation, any: []string{"ip reputation", "poor reputation", "blocked by rbl"}},
	{provider: "mimecast", category: Greylist, any: []string{"greylist", "grey list", "temporarily deferred"}},
	{provider: "barracuda", category: Reputation, any: []string{"barracuda reputation", "blocked using"}},
	{provider: "cisco", category: Reputation, any: []string{"sbrs", "senderbase", "too low", "your access to this mail system has been rejected"}},

	// Words of many servers. What is about a mailbox comes after what is about the way, since the words of the latter are surer.
	{category: Greylist, any: []string{"greylist", "grey-list", "grey list", "graylist", "gray-list", "postgrey", "first time sender", "try again in a few minutes", "milter-greylist"}},
	{category: Loop, any: []string{"too many hops", "hop count exceeded", "mail loop", "loops back", "mail forwarding loop", "too many received"}},
	{category: Virus, any: []string{"virus", "malware", "infected", "trojan", "phishing detected", "clamav"}},
	{category: Full, any: []string{"over quota", "quota exceeded", "exceeded storage", "mailbox full", "mailbox is full", "quota is full", "not enough storage", "insufficient mailbox", "out of space for user", "storage allocation", "exceeds the quota", "user quota", "inbox is full", "overquota", "over the maximum allowed mailbox", "mailbox size limit", "mailfolder is full"}},
	{category: RateLimit, any: []string{"too many messages", "too many connections", "too many concurrent", "rate limit", "ratelimit", "throttl", "too fast", "too frequent", "sending limit", "exceeded the maximum number of", "message limit", "connection limit", "too much mail", "too many recipients", "limit reached", "slow down", "connections per", "messages per", "maximum number of messages", "too many emails"}},
	{category: Auth, any: []string{"spf", "dkim", "dmarc", "sender policy framework", "reverse dns", "no ptr", "ptr record", "without ptr", "reverse hostname", "reverse lookup", "cannot find your hostname", "forward-confirmed", "authentication check", "helo command rejected", "not pass authentication", "arc validation"}, not: []string{"relay"}},
	{category: TLS, any: []string{"must issue a starttls", "starttls first", "tls required", "requires tls", "encryption required", "encryption needed", "tls not available", "requiretls", "tls handshake"}},
	{category: Relay, any: []string{"relay access denied", "relaying denied", "relay not permitted", "not permitted to relay", "unable to relay", "relaying not allowed", "we do not relay", "relay denied", "authentication required", "not allowed to relay", "no relay", "domain isn't in my list", "not local"}},
	{category: Reputation, any: []string{"blacklist", "black list", "blocklist", "block list", "blocked using", "denylist", "spamhaus", "spamcop", "barracudacentral", "dnsbl", " rbl", "sorbs", "uceprotect", "reputation", "your ip", "listed at", "listed in", "listed by", "ip address blocked", "poor sender", "banned", "zen.", "abusix", "has been blocked", "client host blocked", "sender score", "senderscore"}},
	{category: Size, any: []string{"message too large", "message size exceeds", "size limit", "too big", "exceeds size", "maximum message size", "exceeds maximum", "message is too large", "exceeds fixed limit", "larger than"}},
	{category: Spam, any: []string{"spam", "unsolicited", "bulk mail", "junk mail", "content rejected", "looks like uce", "high score", "bayes"}},
	{category: Disabled, any: []string{"disabled", "suspended", "inactive", "deactivated", "not active", "no longer active", "account closed", "account has been closed", "expired account", "locked", "no longer available", "no longer valid", "discontinued", "not accepting mail", "not accepting messages", "unable to receive", "no longer in use", "left the company"}},
	{category: NoMailbox, any: []string{"user unknown", "unknown user", "no such user", "no such recipient", "no such mailbox", "no mailbox here", "mailbox not found", "mailbox unavailable", "does not exist", "doesn't exist", "unknown recipient", "recipient unknown", "recipient not found", "invalid recipient", "invalid mailbox", "user not found", "unknown address", "address unknown", "unrouteable address", "unroutable address", "not a valid mailbox", "unknown mailbox", "mailbox not exist", "no such address", "recipient address rejected: access denied", "undeliverable address", "recipient rejected", "address rejected", "no such person", "not listed in", "user doesn't have", "invalid address", "unknown local part", "account does not", "bad destination mailbox", "is not a known user"}},
	{category: NoDomain, any: []string{"domain not found", "unknown domain", "no such domain", "host unknown", "domain does not accept mail", "does not accept mail", "null mx", "domain isn't", "not hosted here", "no mx", "domain not hosted", "bad destination system", "domain unknown"}},
	{category: Sender, any: []string{"sender address rejected", "sender rejected", "sender domain", "sender denied", "sender verify failed", "invalid sender", "sender not", "mail from", "from address", "domain of sender", "sender verification", "return path"}},
	{category: Busy, any: []string{"temporarily unavailable", "service unavailable", "system resources", "insufficient system storage", "out of memory", "too busy", "overload", "high load", "server busy", "shutting down", "resources temporarily", "lookup failure", "local error", "internal error", "local problem", "not available", "maintenance", "try again later", "try later", "queue file write", "insufficient disk", "database", "temporary failure", "come back later", "temporary local"}},
	{category: Content, any: []string{"attachment", "executable", "content", "header", "malformed", "bare lf", "line too long", "rfc 5322", "rfc5322", "not rfc", "duplicate", "message-id", "charset", "8bit", "mime", "url", "link"}},
	{category: Policy, any: []string{"policy", "administrative", "access denied", "not allowed", "not permitted", "prohibited", "denied", "rejected", "refused", "transaction failed", "unauthorized", "restricted", "blocked", "forbidden"}},
	{category: Protocol, any: []string{"syntax error", "command not", "unrecognized", "bad sequence", "not implemented", "not recognized", "unknown command", "invalid parameter"}},
	{category: Network, any: []string{"timeout", "timed out", "connection", "network"}},
}
