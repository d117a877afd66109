package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"waxwing/internal/config"
	"waxwing/internal/directory"
	"waxwing/internal/store"
)

// quotaEvery is how often crossings of quotas are looked for.
const quotaEvery = time.Minute

// quotaWarner tells people that their mailbox, or the mailboxes of their domain, will be full soon: once for each level that
// is reached, by a message into their INBOX.
type quotaWarner struct {
	notices
	log  *slog.Logger
	told func(level int64) // counts
}

// run looks for crossings until ctx ends.
func (w *quotaWarner) run(ctx context.Context) {
	tick := time.NewTicker(quotaEvery)
	defer tick.Stop()
	for {
		if !w.store.Leads() {
			// another node tells
		} else if err := w.look(ctx); err != nil && ctx.Err() == nil {
			w.log.Error("people can't be told that their quota is used up, it is tried again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// look tells everybody who crossed a level since the last look. A crash between the message and its mark tells twice.
func (w *quotaWarner) look(ctx context.Context) error {
	list, err := w.store.QuotaNotices(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, n := range list {
		if err := w.tell(ctx, n); err != nil {
			errs = append(errs, err)
			continue
		}
		if err := w.store.QuotaTold(ctx, n); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (w *quotaWarner) tell(ctx context.Context, n store.QuotaNotice) error {
	a, err := w.reader(ctx, n)
	if errors.Is(err, directory.ErrNotFound) {
		return nil // removed meanwhile, or a domain whose postmaster is nobody here
	}
	if err != nil {
		return err
	}
	err = w.deliver(ctx, a, w.words(a, n))
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("warning of the quota of %s: %w", a.Address, err)
	}
	w.log.Warn("quota", "account", a.Address.String(), "domain", n.Domain, "percent", n.Level,
		"octets", n.Usage.Bytes, "of_octets", n.Usage.QuotaBytes, "messages", n.Usage.Messages, "of_messages", n.Usage.QuotaMessages)
	w.told(n.Level)
	return nil
}

// reader is who is told: the owner of an account, the postmaster of a domain.
func (w *quotaWarner) reader(ctx context.Context, n store.QuotaNotice) (directory.Account, error) {
	if n.Domain == "" {
		return w.dir.AccountByID(ctx, n.Account)
	}
	return w.postmaster(ctx, n.Domain)
}

// words are the message in the language of its reader.
func (w *quotaWarner) words(to directory.Account, n store.QuotaNotice) notice {
	words := quotaEnglish
	if to.Language == "zh" {
		words = quotaChinese
	}
	subject, what := words.account, words.yours
	if n.Domain != "" {
		subject, what = words.domain, fmt.Sprintf(words.domains, n.Domain)
	}
	var use []string
	if u := n.Usage; u.QuotaBytes > 0 {
		use = append(use, fmt.Sprintf(words.size, config.Size(u.Bytes).Human(), config.Size(u.QuotaBytes).Human()))
	}
	if u := n.Usage; u.QuotaMessages > 0 {
		use = append(use, fmt.Sprintf(words.messages, u.Messages, u.QuotaMessages))
	}
	return notice{
		language: words.language, from: words.from, subject: fmt.Sprintf(subject, n.Level),
		text: what + "\n" + strings.Join(use, "\n") + "\n\n" + words.advice + "\n",
	}
}

// quotaWords are the words of a warning in one language.
type quotaWords struct {
	language, from, account, domain, yours, domains, size, messages, advice string
}

var quotaEnglish = quotaWords{
	language: "en", from: "Mail server", account: "Your mailbox is %d %% full", domain: "The mailboxes of your domain are %d %% full together",
	yours: "Your mailbox is nearly full:", domains: "The mailboxes of %s are nearly full together:",
	size: "  %s of %s", messages: "  %d of %d messages",
	advice: "Once it is full, new mail is put off and in the end returned to its senders. Delete what is not needed any more, and\nempty the folder for deleted mail; or ask your administrator for more room.",
}

var quotaChinese = quotaWords{
	language: "zh", from: "邮件服务器", account: "您的邮箱已使用 %d%%", domain: "您的域的邮箱总容量已使用 %d%%",
	yours: "您的邮箱即将用满：", domains: "%s 的邮箱总容量即将用满：",
	size: "  已用 %s，共 %s", messages: "  已有 %d 封邮件，上限 %d 封",
	advice: "用满之后，新邮件会被推迟，最终退回给发件人。请删除不再需要的邮件并清空“已删除”文件夹，或联系管理员增加容量。",
}
