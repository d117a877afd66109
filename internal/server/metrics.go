package server

import (
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"waxwing/internal/imapserver"
	"waxwing/internal/pop3server"
	"waxwing/internal/queue"
	"waxwing/internal/sieveserver"
	"waxwing/internal/smtpserver"
	"waxwing/internal/store/search/follow"
	"waxwing/internal/transport"
)

// metrics are the figures that the parts report through their hooks. Labels take few values, none from a peer.
type metrics struct {
	sessions *prometheus.GaugeVec
	opened   *prometheus.CounterVec
	refused  *prometheus.CounterVec
	signIns  *prometheus.CounterVec
	messages *prometheus.CounterVec
	octets   *prometheus.CounterVec
	took     *prometheus.HistogramVec
	tls      *prometheus.CounterVec
	panics   *prometheus.CounterVec
	commands *prometheus.HistogramVec
	attempts *prometheus.HistogramVec
	outcomes *prometheus.CounterVec
	reports  *prometheus.CounterVec
	damaged  prometheus.Counter
	quota    *prometheus.CounterVec

	milterFailures prometheus.Counter
	answers        *prometheus.CounterVec
	lasted         *prometheus.HistogramVec
	guard          *prometheus.CounterVec

	anomalies prometheus.Counter

	retrieved, retrievedOctets prometheus.Counter
}

func newMetrics(reg *prometheus.Registry) *metrics {
	m := &metrics{
		sessions: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "waxwing_sessions", Help: "Sessions open now."}, []string{"protocol"}),
		opened:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "waxwing_sessions_total", Help: "Sessions begun."}, []string{"protocol"}),
		refused:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "waxwing_connections_refused_total", Help: "Connections not served, by the limit that was reached."}, []string{"protocol", "reason"}),
		signIns:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "waxwing_sign_ins_total", Help: "Sign-ins tried."}, []string{"protocol", "mechanism", "ok"}),
		messages: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "waxwing_smtp_messages_total", Help: "Messages that came to their end in SMTP, by the code of the reply."}, []string{"mode", "code"}),
		octets:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "waxwing_smtp_octets_total", Help: "Octets of these messages."}, []string{"mode"}),
		took:     prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "waxwing_smtp_message_seconds", Help: "From MAIL to the reply at the end of the message.", Buckets: prometheus.ExponentialBuckets(0.001, 4, 10)}, []string{"mode"}),
		tls:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "waxwing_tls_handshakes_total", Help: "TLS handshakes of SMTP sessions."}, []string{"mode", "version", "ok"}),
		panics:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "waxwing_panics_total", Help: "Sessions ended by a defect of this program; each stands in the log with its stack."}, []string{"protocol"}),
		commands: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "waxwing_imap_command_seconds", Help: "Time of IMAP commands.", Buckets: prometheus.ExponentialBuckets(0.0001, 6, 9)}, []string{"command", "status"}),
		attempts: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "waxwing_queue_attempt_seconds", Help: "Attempts to send to a recipient, by outcome.", Buckets: prometheus.ExponentialBuckets(0.01, 4, 9)}, []string{"status"}),
		outcomes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "waxwing_queue_outcomes_total", Help: "Attempts to send to a recipient, by outcome, what a refusal was about, and who runs the server."}, []string{"status", "category", "provider"}),
		reports:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "waxwing_queue_reports_total", Help: "Notifications sent to senders."}, []string{"kind"}),
		damaged:  prometheus.NewCounter(prometheus.CounterOpts{Name: "waxwing_queue_damaged_total", Help: "Recipients set aside because their rows or messages can't be read."}),

		quota: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "waxwing_quota_warnings_total", Help: "Warnings that a quota is nearly used up, by the per cent that was reached."}, []string{"percent"}),

		anomalies: newAnomalies(),
		guard:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "waxwing_guard_verdicts_total", Help: "What the guard decided about peers, but for letting them go on, by check, stage and act (delay, defer, refuse)."}, []string{"check", "stage", "act"}),

		answers:         prometheus.NewCounterVec(prometheus.CounterOpts{Name: "waxwing_smtp_replies_total", Help: "Replies to SMTP commands, by the class of their code. Refusals of recipients are RCPT with class 4 or 5."}, []string{"mode", "command", "class"}),
		lasted:          prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "waxwing_smtp_session_seconds", Help: "How long SMTP sessions lasted.", Buckets: prometheus.ExponentialBuckets(0.01, 5, 8)}, []string{"mode"}),
		milterFailures:  prometheus.NewCounter(prometheus.CounterOpts{Name: "waxwing_milter_failures_total", Help: "Times that a milter could not be asked about a message."}),
		retrieved:       prometheus.NewCounter(prometheus.CounterOpts{Name: "waxwing_pop3_messages_total", Help: "Messages sent by RETR."}),
		retrievedOctets: prometheus.NewCounter(prometheus.CounterOpts{Name: "waxwing_pop3_octets_total", Help: "Octets of these messages."}),
	}
	reg.MustRegister(m.answers, m.lasted, m.milterFailures, m.retrieved, m.retrievedOctets, m.sessions, m.opened, m.refused, m.signIns, m.messages, m.octets, m.took, m.tls, m.panics, m.commands, m.attempts, m.outcomes, m.reports, m.damaged, m.quota, m.guard, m.anomalies)
	return m
}

// registerSearch reports where the index of the text of messages stands.
func registerSearch(reg *prometheus.Registry, status func() follow.Status) {
	reg.MustRegister(
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "waxwing_search_indexed_total", Help: "Messages whose text came into the search index."},
			func() float64 { return float64(status().Indexed) }),
		prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "waxwing_search_lag_messages", Help: "Messages that the search index has still to take in, about: searches read them instead."},
			func() float64 { return float64(status().Waiting) }),
		prometheus.NewCounterFunc(prometheus.CounterOpts{Name: "waxwing_search_rebuilds_total", Help: "Times that the search index was begun anew because its file was damaged or out of date."},
			func() float64 { return float64(status().Rebuilds) }),
	)
}

func (m *metrics) session(protocol string, change int) {
	m.sessions.WithLabelValues(protocol).Add(float64(change))
	if change > 0 {
		m.opened.WithLabelValues(protocol).Inc()
	}
}

// signIn counts a sign-in. What a peer calls a mechanism is no label unless it is one.
func (m *metrics) signIn(protocol, mechanism string, ok bool) {
	switch mechanism = strings.ToUpper(mechanism); mechanism {
	case "PLAIN", "LOGIN", "USER":
	default:
		mechanism = "other"
	}
	m.signIns.WithLabelValues(protocol, mechanism, strconv.FormatBool(ok)).Inc()
}

func (m *metrics) smtp() smtpserver.Metrics {
	return smtpserver.Metrics{
		Sessions: func(mode smtpserver.Mode, change int) { m.session(mode.String(), change) },
		Rejected: func(mode smtpserver.Mode, reason string) { m.refused.WithLabelValues(mode.String(), reason).Inc() },
		Message: func(mode smtpserver.Mode, code int, octets int64, took time.Duration) {
			m.messages.WithLabelValues(mode.String(), strconv.Itoa(code)).Inc()
			m.octets.WithLabelValues(mode.String()).Add(float64(octets))
			m.took.WithLabelValues(mode.String()).Observe(took.Seconds())
		},
		SignIn: func(mode smtpserver.Mode, mechanism string, ok bool) { m.signIn(mode.String(), mechanism, ok) },
		TLS: func(mode smtpserver.Mode, version uint16, ok bool) {
			m.tls.WithLabelValues(mode.String(), tlsName(version), strconv.FormatBool(ok)).Inc()
		},
		Answer: func(mode smtpserver.Mode, verb string, code int) {
			if verb == "" {
				verb = "session"
			}
			m.answers.WithLabelValues(mode.String(), verb, strconv.Itoa(code/100)).Inc()
		},
		Ended: func(mode smtpserver.Mode, lasted time.Duration) {
			m.lasted.WithLabelValues(mode.String()).Observe(lasted.Seconds())
		},
		Panic: func(mode smtpserver.Mode) { m.panics.WithLabelValues(mode.String()).Inc() },
	}
}

// tlsName names the versions of the profile; "none" stands for a handshake that never agreed on one.
func tlsName(version uint16) string {
	switch version {
	case 0x0303:
		return "1.2"
	case 0x0304:
		return "1.3"
	}
	return "none"
}

func (m *metrics) imap() imapserver.Hooks {
	return imapserver.Hooks{
		SessionOpened: func() { m.session("imap", 1) },
		SessionClosed: func() { m.session("imap", -1) },
		Refused:       func(reason string) { m.refused.WithLabelValues("imap", reason).Inc() },
		LoggedIn:      func(mechanism string, ok bool) { m.signIn("imap", mechanism, ok) },
		Panic:         func() { m.panics.WithLabelValues("imap").Inc() },
		Command: func(name, status string, d time.Duration) {
			m.commands.WithLabelValues(name, status).Observe(d.Seconds())
		},
	}
}

func (m *metrics) pop3() pop3server.Metrics {
	return pop3server.Metrics{
		Sessions:  func(change int) { m.session("pop3", change) },
		Refused:   func(reason string) { m.refused.WithLabelValues("pop3", reason).Inc() },
		SignIn:    func(mechanism string, ok bool) { m.signIn("pop3", mechanism, ok) },
		Retrieved: func(octets int64) { m.retrieved.Inc(); m.retrievedOctets.Add(float64(octets)) },
		Panic:     func() { m.panics.WithLabelValues("pop3").Inc() },
	}
}

func (m *metrics) sieve() sieveserver.Metrics {
	return sieveserver.Metrics{
		Sessions: func(change int) { m.session("sieve", change) },
		Refused:  func(reason string) { m.refused.WithLabelValues("sieve", reason).Inc() },
		SignIn:   func(mechanism string, ok bool) { m.signIn("sieve", mechanism, ok) },
		Panic:    func() { m.panics.WithLabelValues("sieve").Inc() },
	}
}

func (m *metrics) queue() queue.Metrics {
	return queue.Metrics{
		Attempt: func(status transport.Status, took time.Duration) {
			m.attempts.WithLabelValues(attemptName(status)).Observe(took.Seconds())
		},
		Outcome: func(status transport.Status, category, provider string) {
			m.outcomes.WithLabelValues(attemptName(status), category, provider).Inc()
		},
		Report:  func(kind queue.Kind) { m.reports.WithLabelValues(kind.String()).Inc() },
		Damaged: func(recipients int) { m.damaged.Add(float64(recipients)) },
	}
}

func attemptName(status transport.Status) string {
	switch status {
	case transport.Delivered:
		return "delivered"
	case transport.Deferred:
		return "deferred"
	case transport.Failed:
		return "failed"
	}
	return "undecided"
}
