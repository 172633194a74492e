"""The rules that Kiln brings: a few, in English and Chinese; each server adds its own.

Sexual pictures of minors are refused everywhere, and no server can allow them. The rest holds unless a server turns
it off: FLUX.1's licence wants filters or a review of what it draws. Knows no server.
"""

from __future__ import annotations

from bot.servers.policy import Action, Rule, Where

_MINORS = (
    "child | children | kid | kids | minor | minors | underage | underaged | preteen | preteens | toddler | toddlers | "
    "loli | lolita | lolicon | shota | shotacon | teen | teens | teenage"
)
_MINORS_TOO = (
    "schoolgirl | schoolgirls | schoolboy | schoolboys | school girl | school girls | school boy | school boys | "
    "little girl | little girls | little boy | little boys | young girl | young girls | young boy | young boys | "
    "baby | babies | infant | infants | newborn"
)
_MINORS_ZH = (
    "儿童 | 兒童 | 幼女 | 幼童 | 小孩 | 孩子 | 女童 | 男童 | 小学生 | 中学生 | 未成年 | 萝莉 | 蘿莉 | 正太 | 小女孩 | "
    "小男孩 | 少女 | 学生妹 | 婴儿 | 嬰兒 | 女婴 | 男婴 | 幼儿 | 孩童 | 小女生 | 小男生 | 小学女生 | 初中生 | 高中生"
)
_NUMBERS = (
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
)
_AGES = (  # in pieces, because a rule has a limit
    *(
        " | ".join(f"{age} year old | {age} years old" for age in ages)
        for ages in (range(1, 10), range(10, 18), _NUMBERS[:8], _NUMBERS[8:])
    ),
    " | ".join(f"{age}yo | aged {age}" for age in range(1, 18)),
    " | ".join(f"{age}岁 | {age}歲" for age in range(1, 18)),
)
_SEXUAL = (
    "nude | nudes | nudity | naked | topless | nsfw | porn | pornographic | hentai | sex | sexual | sexy | "
    "erotic | lingerie | masturbating | undressed ! naked eye | naked mole rat | naked tree | naked trees"
)
_SEXUAL_ZH = "裸体 | 裸體 | 全裸 | 半裸 | 裸照 | 裸露 | 赤裸 | 色情 | 性感 | 淫荡 | 做爱 ! 做爱心 | 做爱好 | 赤裸裸"

ALWAYS = tuple(
    Rule(words=words, action=Action.REFUSE)
    for words in (
        "child porn | child pornography | childporn | csam | lolicon | shotacon | 儿童色情 | 幼女裸体",
        f"{_MINORS} + {_SEXUAL}",
        f"{_MINORS_TOO} + {_SEXUAL} | baby blue | baby pink | baby oil | baby doll",
        f"{_MINORS_ZH} + {_SEXUAL_ZH}",
        *(f"{ages} + {sexual}" for ages in _AGES for sexual in (_SEXUAL, _SEXUAL_ZH)),
    )
)
USUAL = (
    Rule(
        words="nude | nudes | nsfw | porn | pornographic | hentai | explicit sex | sex scene | having sex | blowjob | "
        "masturbating | genitals | penis | vagina | naked woman | naked women | naked man | naked men | naked girl | "
        "naked girls | naked body | fully naked ! nude lipstick | nude heels",
        action=Action.REFUSE,
        where=Where.OPEN,
    ),
    Rule(
        words="裸体 | 裸體 | 全裸 | 裸照 | 色情 | 淫荡 | 做爱 | 性交 ! "
        "做爱心 | 做爱好 | 异性交往 | 同性交往 | 两性交往",
        action=Action.REFUSE,
        where=Where.OPEN,
    ),
    Rule(words="gore | gory | dismembered | beheaded | beheading | 肢解 | 斩首", action=Action.HOLD, where=Where.OPEN),
)
