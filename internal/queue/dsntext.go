package queue

import (
	"fmt"
	"strings"
	"time"

	"waxwing/internal/address"
)

// words are what a kind of notification says to people.
type words struct {
	subject       [2]string // English, Chinese
	lead          [2]string
	expired       [2]string // in front of a recipient that was given up by age
	end           [2]string
	withServer    bool // says what the server answered
	withLastWords bool // says when it ends
}

var wording = map[Kind]words{
	Failed: {
		subject: [2]string{"Mail not delivered", "邮件未能送达"},
		lead: [2]string{
			"Your message could not be delivered to the recipients below, and no further attempt will be made.",
			"您的邮件未能送达以下收件人，系统不会再次尝试投递。",
		},
		expired: [2]string{"it could not be delivered for too long", "长时间未能送达"},
		end: [2]string{
			"Check the addresses. If they are right, ask the recipients by another way, and show them the answer of their server that stands above.",
			"请检查收件人地址。如果地址无误，请通过其他方式联系收件人，并将上面对方服务器的答复提供给对方。",
		},
		withServer: true,
	},
	Delayed: {
		subject: [2]string{"Mail delayed", "邮件延迟"},
		lead: [2]string{
			"Your message has not yet been delivered to the recipients below. You need not send it again: attempts go on.",
			"您的邮件尚未送达以下收件人。无需重新发送，系统会继续尝试投递。",
		},
		withServer: true, withLastWords: true,
	},
	Relayed: {
		subject: [2]string{"Mail passed on", "邮件已转交"},
		lead: [2]string{
			"Your message was passed on to the server of the recipients below. That server sends no notifications, so you may not hear whether it delivered the message.",
			"您的邮件已转交给以下收件人的服务器。该服务器不发送回执，因此您可能不会收到最终投递结果的通知。",
		},
	},
	Delivered: {
		subject: [2]string{"Mail delivered", "邮件已送达"},
		lead: [2]string{
			"Your message was delivered to the mailboxes of the recipients below.",
			"您的邮件已送达以下收件人的邮箱。",
		},
	},
}

func (n *Notification) subject() string {
	w := wording[n.Kind]
	return w.subject[0] + " / " + w.subject[1]
}

// text writes the part for people: all of it in English, then in Chinese.
func (n *Notification) text() string {
	var b strings.Builder
	w := wording[n.Kind]
	for lang := range 2 {
		if lang > 0 {
			b.WriteString("\n" + strings.Repeat("-", 40) + "\n\n")
		}
		fmt.Fprintf(&b, "%s\n\n", w.lead[lang])
		for _, r := range n.Recipients {
			n.recipientText(&b, w, lang, r)
		}
		if w.withLastWords && !n.Expires.IsZero() {
			fmt.Fprintf(&b, "%s %s\n", [2]string{"Attempts end on", "系统将持续尝试至"}[lang], when(n.Expires, lang))
		}
		if w.end[lang] != "" {
			fmt.Fprintf(&b, "%s\n", w.end[lang])
		}
		fmt.Fprintf(&b, "\n%s\n", [2]string{
			fmt.Sprintf("This message was made by the mail server %s. Reference: %s", n.Hostname, clean(n.TraceID, 100, false)),
			fmt.Sprintf("本邮件由邮件服务器 %s 自动生成。参考编号：%s", n.Hostname, clean(n.TraceID, 100, false)),
		}[lang])
	}
	return b.String()
}

func (n *Notification) recipientText(b *strings.Builder, w words, lang int, r NotifiedRecipient) {
	shown := r.To
	if a, err := address.Parse(r.To); err == nil {
		shown = a.Unicode()
	}
	fmt.Fprintf(b, "  <%s>", clean(shown, 500, true))
	if r.Expired {
		fmt.Fprintf(b, " (%s)", w.expired[lang])
	}
	b.WriteString("\n")
	if !w.withServer || r.Diagnostic == "" {
		b.WriteString("\n")
		return
	}
	switch {
	case isReply(r.Diagnostic) && r.Host != "":
		fmt.Fprintf(b, [2]string{"    The server %s answered:\n", "    服务器 %s 的答复：\n"}[lang], clean(r.Host, 300, false))
	case isReply(r.Diagnostic):
		b.WriteString([2]string{"    The server answered:\n", "    对方服务器的答复：\n"}[lang])
	default:
		b.WriteString([2]string{"    What happened:\n", "    原因：\n"}[lang])
	}
	left := maxDiagnostic
	for line := range strings.SplitSeq(r.Diagnostic, "\n") {
		line = clean(line, left, true)
		fmt.Fprintf(b, "      %s\n", line)
		if left -= len(line); left <= 0 {
			break
		}
	}
	b.WriteString("\n")
}

func when(t time.Time, lang int) string {
	if lang == 1 {
		return t.Format("2006-01-02 15:04 -0700")
	}
	return t.Format("2 January 2006, 15:04 -0700")
}
