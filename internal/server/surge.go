package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"waxwing/internal/directory"
	"waxwing/internal/guard/surge"
	"waxwing/internal/store"
)

// surgeTeller tells of mail bombs: the user and the postmaster by a message, the administrator by the log and a metric.
type surgeTeller struct {
	notices
	log   *slog.Logger
	count func(kind string) // counts surges

	hour time.Time // that told counts in
	told int       // messages to postmasters
}

const (
	surgeSilence  = 6 * time.Hour // between two messages to one user
	maxPostmaster = 20            // messages to postmasters in an hour: an attack on many accounts is one piece of news
)

// happened is called by one goroutine.
func (t *surgeTeller) happened(ctx context.Context, e surge.Event) {
	a, err := t.dir.AccountByID(ctx, e.Account)
	if err != nil {
		t.log.Warn("mail bomb", "account", int64(e.Account), "kind", e.Kind.String(), "begins", e.Begins, "error", err)
		return
	}
	if !e.Begins {
		t.log.Warn("mail bomb has ended", "account", a.Address.String(), "kind", e.Kind.String(), "set_aside", e.Aside)
		return
	}
	t.count(e.Kind.String())
	t.log.Warn("mail bomb", "account", a.Address.String(), "kind", e.Kind.String(), "in_ten_minutes", e.Count,
		"usual", fmt.Sprintf("%.1f", e.Usual), "action", string(e.Action))
	if now := t.clock(); now.Sub(e.Told) < surgeSilence && !e.Told.After(now) {
		return
	}
	if err := t.tell(ctx, a, e); err != nil {
		t.log.Error("nobody can be told of a mail bomb", "account", a.Address.String(), "error", err)
	}
}

// tell writes to the user, notes it, and writes to the postmaster. A crash in between tells twice.
func (t *surgeTeller) tell(ctx context.Context, a directory.Account, e surge.Event) error {
	now := t.clock()
	if err := t.deliver(ctx, a, t.words(a, a, e)); err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if err := t.store.SurgeTold(ctx, a.ID, now); err != nil {
		return err
	}
	if now.Sub(t.hour) >= time.Hour || now.Before(t.hour) {
		t.hour, t.told = now, 0
	}
	if t.told++; t.told > maxPostmaster {
		return nil
	}
	p, err := t.postmaster(ctx, a.Address.Domain)
	if errors.Is(err, directory.ErrNotFound) || err == nil && p.ID == a.ID {
		return nil
	}
	if err != nil {
		return err
	}
	return t.deliver(ctx, p, t.words(p, a, e))
}

// words are what a reader is told about the account of somebody.
func (t *surgeTeller) words(reader, about directory.Account, e surge.Event) notice {
	w := surgeEnglish
	if reader.Language == "zh" {
		w = surgeChinese
	}
	set := t.dir.Settings().Stranger
	folder := set.SurgeFolder
	if about.Language == "zh" {
		folder = set.SurgeChinese
	}
	what := w.deferred
	if e.Action == surge.Folder {
		what = fmt.Sprintf(w.folder, folder)
	}
	subject, text := w.subject, w.yours
	if reader.ID != about.ID {
		subject, text = fmt.Sprintf(w.subjectOf, about.Address), fmt.Sprintf(w.of, about.Address)
	}
	text += "\n" + fmt.Sprintf(w.kinds[e.Kind], e.Count) + "\n" + what + "\n" + w.advice + "\n"
	return notice{language: w.language, from: w.from, subject: subject, text: text}
}

// surgeWords are the words about a mail bomb in one language.
type surgeWords struct {
	language, from, subject, subjectOf, yours, of, folder, deferred, advice string
	kinds                                                                   [3]string // by surge.Kind
}

var surgeEnglish = surgeWords{
	language: "en", from: "Mail server", subject: "Your mailbox is being flooded with mail", subjectOf: "The mailbox %s is being flooded with mail",
	yours:    "Your mailbox gets far more mail from strangers than it usually does.",
	of:       "The mailbox %s gets far more mail from strangers than it usually does.",
	folder:   "What is too much goes into the folder \"%s\" and is kept there. Mail from people who are known to the mailbox still comes into the inbox.",
	deferred: "Mail from strangers is asked to come again later. Mail from people who are known to the mailbox still comes in.",
	advice:   "Such floods are often meant to hide one important message, say about an order or a changed password. Look whether there\nis one among them that you did not expect. The measure ends by itself when the flood is over.",
	kinds: [3]string{
		"In the last ten minutes %d letters from many senders came.",
		"In the last ten minutes %d newsletters, confirmations or notices came: somebody may have signed the address up for them.",
		"In the last ten minutes %d notices about undeliverable mail came: somebody uses the address as a forged sender.",
	},
}

var surgeChinese = surgeWords{
	language: "zh", from: "邮件服务器", subject: "您的邮箱正在遭受大量邮件轰炸", subjectOf: "邮箱 %s 正在遭受大量邮件轰炸",
	yours:    "您的邮箱收到的陌生来信远多于平常。",
	of:       "邮箱 %s 收到的陌生来信远多于平常。",
	folder:   "多出的邮件会放入“%s”文件夹并保留在那里。与该邮箱有过往来的人，其来信仍进入收件箱。",
	deferred: "陌生人的来信会被要求稍后再来。与该邮箱有过往来的人，其来信照常接收。",
	advice:   "这种轰炸往往是为了掩盖某一封重要邮件，例如订单或密码变更通知。请留意其中是否有您意料之外的邮件。轰炸停止后，此措施会自动结束。",
	kinds: [3]string{
		"最近十分钟内收到来自许多发件人的 %d 封邮件。",
		"最近十分钟内收到 %d 封订阅、确认或通知邮件：可能有人用该地址注册了它们。",
		"最近十分钟内收到 %d 封退信通知：有人冒用该地址作为发件人。",
	},
}

// SurgeChanged has an account's choice take effect.
func (s *Server) SurgeChanged(id store.AccountID) { s.parts.door.surge.Reload(id) }
