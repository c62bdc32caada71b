"""Which lists a request is about (specification, section 5): everything, unless own words name lists to limit it."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Final

from daemon.config import House, MailingList
from daemon.mail import phrases
from daemon.mail.sentences import Sentence
from daemon.mail.wishes import Wish

# Words that are about any marketing mail: a list named by nothing else is named only as one kind set against others.
_GENERIC: Final = frozenset(
    "newsletter newsletters news letter letters mailing mailings list offer offers discount discounts promotion "
    "promotions promo deals"
    " sale sales special marketing email emails mail advertising angebot angebote rabatt rabatte aktionen werbung "
    "nouvelles offres promotions"
    " ofertas descuentos promociones boletin boletines noticias offerte sconti aanbiedingen ofertas"
    " oferty erbjudanden tilbud the der die das la le les el los our updates".split()
)
# Kinds of list, in several languages: a list belongs to a kind if its id, title or one of its names has such a word.
_KINDS: Final[tuple[tuple[str, ...], ...]] = (
    ("offers", "offer", "discounts", "discount", "promotions", "promos", "deals", "sales offers",
     "angebote", "angebot", "rabatte", "aktionen", "offres", "remises", "reductions", "promos",
     "ofertas", "descuentos", "promociones", "offerte", "sconti", "promozioni", "aanbiedingen",
     "oferty", "erbjudanden", "tilbud", "special offers", "sonderangebote", "kortingen",
     "kortingsacties", "promocoes", "descontos",
     "rabaty", "promocje", "promocji", "rabatter", "kampanjer", "kampagner", "tilbudsmails",
     "erbjudandena", "tarjoukset", "tarjouksia", "alennukset", "nabidky", "slevy", "slevove akce",
     "скидки", "скидках", "скидок", "акции", "акциях", "предложения", "спецпредложения", "знижки",
     "акції", "пропозиції",
     "kampanyalar", "kampanya", "indirimler", "firsatlar", "割引", "キャンペーン", "セール", "セール情報", "特典", "优惠",
     "優惠", "折扣", "促销", "促銷", "할인", "할인 정보", "프로모션", "العروض", "عروض", "الخصومات", "מבצעים", "הנחות"),
    ("product updates", "product update", "release notes", "release note", "update notices",
     "update notice", "update notifications", "updates", "release mails", "release emails",
     "update emails", "update mails", "product news", "changelog", "update hinweise",
     "updatehinweise", "update infos",
     "versionshinweise", "produktneuheiten", "produkt updates", "notes de version",
     "nouvelles versions", "mises a jour", "avis de mise a jour", "annonces de mise a jour",
     "annonces de mises a jour", "notas de version", "notas de la version", "actualizaciones",
     "avisos de actualizacion", "aggiornamenti", "note di rilascio", "note di versione",
     "releasenotes", "release notities", "updateberichten", "notas de lancamento", "notas de versao",
     "atualizacoes", "atualizacoes do produto", "informacje o wersjach",
     "informacje o aktualizacjach", "aktualizacje", "uppdateringar", "versionsnyheter",
     "opdateringer", "oppdateringer", "versionsnoter", "paivitykset", "paivitystiedotteet",
     "poznamky k verzi", "poznamky k vydani", "aktualizace",
     "обновления", "обновлениях", "обновлений", "заметки о выпуске", "примечания к выпуску",
     "оновлення", "примітки до випуску", "guncellemeler", "surum notlari", "リリースノート", "アップデート情報",
     "更新情報", "更新のお知らせ", "发布说明", "更新通知", "版本说明", "更新說明", "版本說明", "릴리스 노트", "업데이트 소식", "업데이트 안내",
     "ملاحظات الإصدار", "التحديثات", "עדכוני גרסה", "עדכוני מוצר"),
    ("webinars", "webinar", "webinar invitations", "webinar invites", "webinar invitation",
     "webinar mails", "webinar emails", "academy", "webinare", "webinar einladungen",
     "webinareinladungen", "einladungen zu webinaren",
     "einladungen zum webinar", "webinaires", "webinaire", "invitations aux webinaires",
     "seminarios web", "seminarios", "invitaciones a webinars", "seminari", "online seminare",
     "webinaruitnodigingen", "uitnodigingen voor webinars", "convites para webinars",
     "convites para os webinars", "zaproszenia na webinary", "webinary", "webinarow",
     "webbinarier", "webbinarium", "webinarinbjudningar", "webinarinvitationer",
     "webinarinvitasjoner", "webinarer", "webinaarit", "webinaarikutsut", "webinare",
     "pozvanky na webinare", "вебинары", "вебинаров", "вебинарах", "приглашения на вебинары",
     "вебінари", "вебінарів", "запрошення на вебінари", "web seminerleri", "webinar davetleri",
     "ウェビナー", "ウェビナーの案内", "セミナー案内", "网络研讨会", "線上研討會", "网络讲座", "研讨会", "웨비나", "웨비나 초대", "الندوات",
     "دعوات الندوات", "וובינרים", "הזמנות לוובינרים"),
    ("reseller bulletin", "reseller", "resellers", "partner bulletin", "partner mails",
     "partner emails", "partners", "partner", "dealer bulletin", "dealer mails", "haendlerbrief",
     "handlerrundbrief", "handlerverteiler", "partnerbrief", "bulletin revendeurs",
     "bulletin des revendeurs", "revendeurs", "boletin de distribuidores", "boletin para distribuidores",
     "bollettino rivenditori", "rivenditori", "resellerbulletin", "wederverkopers",
     "boletim de revendedores", "revendedores", "biuletyn dla partnerow", "biuletyn partnerski",
     "aterforsaljare", "forhandlerbulletin", "jalleenmyyjat", "bulletin pro prodejce",
     "для партнёров", "бюллетень для партнёров", "для партнерів", "bayi bulteni", "販売パートナー", "代理店向け",
     "经销商", "經銷商", "리셀러", "الموزعين", "משווקים"),
    ("newsletter", "newsletters", "letter", "brief", "lettre", "carta", "boletin",
     "lettre d information", "nieuwsbrief", "nyhetsbrev", "nyhedsbrev", "biuletyn"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scope:
    """`lists`: the scope as a reading gives it; `keep`: ids the writer wants to go on receiving; the rule that said so."""

    lists: tuple[str, ...]
    keep: tuple[str, ...]
    rule: str


@dataclass(slots=True)
class _Mention:
    at: int
    end: int
    list_id: str
    strong: bool


def scope(wish: Wish, house: House) -> Scope:
    """The lists that a request (or a wish to join) is limited to."""
    wanted: set[str] = set()
    weak: set[str] = set()
    keep: set[str] = set()
    only = everything = excepted = rest_stays = False
    beside: set[str] = set()  # named where neither asked nor kept
    for n, sentence in enumerate(wish.sentences):
        only = only or (sentence.has("only") and n in wish.deciding)
        for clause in sentence.clauses:
            mentions = _mentions(clause.words, house.lists)
            kept = _is_kept(sentence, clause, n in wish.deciding)
            rest_stays = rest_stays or (kept and not mentions)
            except_at = min(clause.found.get("except", {}), default=999)
            if except_at < 999 and n in wish.deciding:
                after = {m.list_id for m in mentions if m.at >= except_at}
                keep |= after
                excepted = excepted or bool(after)
                mentions = [m for m in mentions if m.at < except_at]
            if kept:
                keep |= {m.list_id for m in mentions}
                continue
            if n in wish.deciding:
                wanted |= {m.list_id for m in mentions if m.strong}
                weak |= {m.list_id for m in mentions if not m.strong}
                everything = everything or (n in wish.deciding and _is_everything(clause, mentions))
            else:
                beside |= {m.list_id for m in mentions if m.strong}
    keep -= wanted
    if wanted and (keep or rest_stays):
        everything = False  # "nothing more of the offers; the rest is fine"
    if not wanted and not weak and (keep or rest_stays) and not excepted:
        wanted = beside - keep  # "The Quill Letter? Take me off that one; the release notes may come"
    kinds_apart = bool(keep) or only or bool(wanted and not everything)
    named = wanted | (weak - keep if kinds_apart else set())
    if "newsletter" in weak and "newsletter" not in wanted and named - {"newsletter"} and not (only or keep):
        named.discard("newsletter")
    if (everything or excepted or not named) and keep:
        rest = {x.id for x in house.lists} - keep
        return (
            Scope(tuple(sorted(f"list:{x}" for x in rest)), tuple(sorted(keep)), "5-all-but")
            if rest
            else Scope(("all",), (), "5-all")
        )
    if everything or not named or (len(house.lists) > 1 and named >= {x.id for x in house.lists}):
        return Scope(("all",), (), "5-all")
    return Scope(tuple(sorted(f"list:{x}" for x in named)), tuple(sorted(keep - named)), "5-named")


def names(house: House) -> list[list[str]]:
    """What people call our lists, as words, where the name limits by itself."""
    return [name for mailing in house.lists for name, strong in _names(mailing) if strong]


def _is_kept(sentence: Sentence, clause: phrases.Clause, deciding: bool) -> bool:
    """Does this clause say what is to go on? In a sentence that asks, only words of keeping in the same clause count."""
    if "keep_word" not in clause.found:
        return False
    at = min(clause.found["keep_word"])
    asked = [hit.start for n, hit in sentence.says("ask") if sentence.clauses[n] is clause]
    return not asked or not deciding or at < min(asked)


def _is_everything(clause: phrases.Clause, mentions: list[_Mention]) -> bool:
    """ "all of them", "everything": unless it only goes with a list that is named ("all webinar invitations")."""
    for start, ends in clause.found.get("everything", {}).items():
        if not any(start < m.at <= max(ends) + 2 or m.at <= start < m.end for m in mentions):
            return True
    return False


def _mentions(words: list[str], lists: tuple[MailingList, ...]) -> list[_Mention]:
    """Lists named in a clause; the longest name wins where several begin or overlap."""
    found: list[_Mention] = []
    there = set(words).union(word[:-cut] for word in words for cut in (1, 2) if len(word) > 4)
    for mailing in lists:
        for name, strong in _names(mailing):
            size = len(name)
            if not name or name[0] not in there:
                continue
            found += [
                _Mention(at, at + size, mailing.id, strong)
                for at in range(len(words) - size + 1)
                if all(_same(words[at + n], name[n]) for n in range(size))
            ]
    found.sort(key=lambda m: (m.end - m.at, m.strong), reverse=True)
    out: list[_Mention] = []
    for mention in found:
        if not any(m.at < mention.end and mention.at < m.end for m in out):
            out.append(mention)
    return out


def _same(word: str, name: str) -> bool:
    return word == name or (len(name) > 4 and word in (name + "s", name + "n", name + "en", name + "es"))


@functools.lru_cache(maxsize=1024)  # asked for every clause
def _names(mailing: MailingList) -> list[tuple[list[str], bool]]:
    """What people may call a list: its own names, and the words of its kind; does the name limit by itself?"""
    own = [phrases.tokens(x) for x in (mailing.id.replace("-", " "), mailing.title, *mailing.names) if x]
    out = []
    for name in own:
        bare = [w for w in name if w not in ("the", "der", "die", "das", "la", "le", "el", "our", "il")]
        if bare:
            out.append((bare, not all(w in _GENERIC for w in bare)))
    for kind in _KINDS:
        if any(_has(name, phrases.tokens(word)) for name in own for word in kind[:6]):
            out += [(phrases.tokens(word), _limits(word, kind)) for word in kind]
    return out


def _limits(word: str, kind: tuple[str, ...]) -> bool:
    """Kinds that name a list even when they stand alone; offers and letters do only beside others."""
    return (
        kind[0] not in ("offers", "newsletter")
        and not all(w in _GENERIC for w in phrases.tokens(word))
        and word not in ("partner", "partners", "academy", "seminarios")
    )


def _has(name: list[str], word: list[str]) -> bool:
    return any(name[n : n + len(word)] == word for n in range(len(name) - len(word) + 1))
