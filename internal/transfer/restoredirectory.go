package transfer

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"waxwing/internal/address"
	"waxwing/internal/control"
	"waxwing/internal/store"
)

// beginDomain makes the domain when it is gone.
func (r *restorer) beginDomain(ctx context.Context) error {
	_, err := control.DomainShow.Call(ctx, r.Carrier, control.DomainRef{Name: r.Domain})
	if control.KindOf(err) != control.NotFound {
		return err
	}
	list, policies, err := r.Reader.Domains(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(list, func(d store.DirectoryDomain) bool { return d.Name == r.Domain })
	if i < 0 {
		return control.Errorf(control.NotFound, "backup %s has no domain %s", r.Reader.ID, r.Domain)
	}
	r.out.Domain = r.Domain
	if r.DryRun {
		return nil
	}
	if _, err := control.DomainAdd.Call(ctx, r.Carrier, control.Domain{Name: r.Domain, CatchAll: list[i].CatchAll, MaxAccounts: list[i].MaxAccounts}); err != nil {
		return err
	}
	if p, ok := policies[r.Domain]; ok {
		_, err = control.DomainPolicySet.Call(ctx, r.Carrier, control.DomainPolicyChange{
			Domain: r.Domain, QuotaBytes: &p.QuotaOctets, QuotaMessages: &p.QuotaMessages, TrashDays: &p.TrashDays, JunkDays: &p.JunkDays, MailDays: &p.MailDays,
		})
	}
	return err
}

// endDirectory brings back the aliases of a domain, and the postmaster of one that has none. A dry run of an account says
// which aliases would come with it.
func (r *restorer) endDirectory(ctx context.Context) error {
	if r.Domain == "" {
		if !r.DryRun || !r.out.Accounts[0].Made {
			return nil
		}
		return r.aliasesOf(ctx, r.out.Accounts[0].Address)
	}
	err := r.aliases(ctx, func(al store.DirectoryAlias) bool { return al.Domain == r.Domain })
	if err != nil || r.DryRun {
		return err
	}
	return r.postmaster(ctx)
}

// aliasesOf brings back the aliases that name an account.
func (r *restorer) aliasesOf(ctx context.Context, owner string) error {
	a, err := address.Parse(owner)
	if err != nil {
		return err
	}
	return r.aliases(ctx, func(al store.DirectoryAlias) bool {
		return slices.ContainsFunc(al.Targets, func(t store.DirectoryTarget) bool { return t.Key == a.Key() })
	})
}

// aliases brings back aliases. An address that is something now stays what it is.
func (r *restorer) aliases(ctx context.Context, want func(store.DirectoryAlias) bool) error {
	list, err := r.Reader.Aliases(ctx)
	if err != nil {
		return err
	}
	taken, err := r.taken(ctx)
	if err != nil {
		return err
	}
	for _, al := range list {
		if taken[al.Key] || !want(al) {
			continue
		}
		if err := r.alias(ctx, al); err != nil {
			return err
		}
	}
	return nil
}

// taken lists the addresses that are something on the server.
func (r *restorer) taken(ctx context.Context) (map[string]bool, error) {
	out := make(map[string]bool)
	pages := []func(page control.Listing) (addresses []string, next string, err error){
		func(page control.Listing) (list []string, next string, err error) {
			got, err := control.AccountList.Call(ctx, r.Carrier, page)
			for _, a := range got.Accounts {
				list = append(list, a.Address)
			}
			return list, got.Next, err
		},
		func(page control.Listing) (list []string, next string, err error) {
			got, err := control.AliasList.Call(ctx, r.Carrier, page)
			for _, a := range got.Aliases {
				list = append(list, a.Address)
			}
			return list, got.Next, err
		},
	}
	for _, ask := range pages {
		for page := (control.Listing{Domain: r.Domain}); ; {
			list, next, err := ask(page)
			if err != nil {
				return nil, err
			}
			for _, text := range list {
				if a, err := address.Parse(text); err == nil {
					out[a.Key()] = true
				}
			}
			if page.After = next; next == "" {
				break
			}
		}
	}
	return out, nil
}

func (r *restorer) alias(ctx context.Context, al store.DirectoryAlias) error {
	req := control.Alias{Address: address.Address{Local: al.Local, Domain: al.Domain}.String()}
	for _, t := range al.Targets {
		req.Targets = append(req.Targets, t.Address)
	}
	text := req.Address + " → " + strings.Join(req.Targets, ", ")
	if r.DryRun {
		r.out.Aliases = append(r.out.Aliases, text)
		return nil
	}
	_, err := control.AliasAdd.Call(ctx, r.Carrier, req)
	switch control.KindOf(err) {
	case control.Conflict, control.Invalid: // somebody took the address meanwhile, or its domain is not here
		r.out.Warnings = append(r.out.Warnings, fmt.Sprintf("the alias %s is not brought back: %v", text, err))
		return nil
	}
	if err == nil {
		r.out.Aliases = append(r.out.Aliases, text)
	}
	return err
}

// postmaster gives a domain without a postmaster the one that it had.
func (r *restorer) postmaster(ctx context.Context) error {
	list, _, err := r.Reader.Domains(ctx)
	if err != nil {
		return err
	}
	now, err := control.DomainShow.Call(ctx, r.Carrier, control.DomainRef{Name: r.Domain})
	if err != nil || now.Postmaster != "" {
		return err
	}
	for _, d := range list {
		if d.Name == r.Domain && d.Postmaster != "" {
			now.Postmaster = d.Postmaster
			if _, err := control.DomainSet.Call(ctx, r.Carrier, now); err != nil {
				r.out.Warnings = append(r.out.Warnings, fmt.Sprintf("%s: the postmaster %s is not brought back: %v", r.Domain, d.Postmaster, err))
			}
		}
	}
	return nil
}
