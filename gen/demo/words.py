"""The words of the demo world: how English and Simplified Chinese name what a scene can contain.

In every tuple the first word is the plainest.  This file builds no sentences, and does not know what a picture is.
"""

Table = dict[str, dict[str, tuple[str, ...]]]

EN_THINGS: dict[str, tuple[tuple[str, str], ...]] = {  # singular and plural
    "house": (("house", "houses"), ("cottage", "cottages"), ("home", "homes"), ("cabin", "cabins")),
    "tree": (("tree", "trees"),),
    "mountain": (("mountain", "mountains"), ("peak", "peaks")),
    "boat": (("boat", "boats"), ("sailboat", "sailboats"), ("sailing boat", "sailing boats"), ("ship", "ships")),
    "lighthouse": (("lighthouse", "lighthouses"),),
    "castle": (("castle", "castles"), ("fortress", "fortresses"), ("palace", "palaces")),
    "cat": (("cat", "cats"), ("kitty", "kitties"), ("kitten", "kittens")),
    "balloon": (
        ("hot-air balloon", "hot-air balloons"),
        ("balloon", "balloons"),
        ("hot air balloon", "hot air balloons"),
    ),
}
EN_VERBS = {"cat": ("sits", "sit"), "balloon": ("floats", "float"), "boat": ("rests", "rest")}  # the others stand
EN_NUMBERS: dict[int, tuple[str, ...]] = {
    1: ("a", "one", "a single", "the", ""),
    2: ("two", "2", "a pair of", "a couple of"),
    3: ("three", "3", "a group of three", "a trio of"),
}
EN: Table = {
    "colour": {
        "red": ("red", "crimson", "scarlet"),
        "orange": ("orange", "tangerine"),
        "yellow": ("yellow", "golden"),
        "green": ("green", "emerald"),
        "blue": ("blue", "azure"),
        "purple": ("purple", "violet"),
        "white": ("white", "ivory"),
        "brown": ("brown", "chestnut"),
    },
    "size": {"small": ("small", "little", "tiny", "mini"), "large": ("large", "big", "huge", "giant")},
    "time": {
        "dawn": ("at dawn", "at sunrise", "at daybreak", "in the early morning"),
        "noon": ("at noon", "at midday", "at high noon", "in broad daylight"),
        "sunset": ("at sunset", "at dusk", "at sundown", "at twilight", "in the evening"),
        "night": ("at night", "at midnight", "under the night sky", "in the dark of night", "by night"),
    },
    "sky": {
        "clear": ("under a clear sky", "in clear weather", "under a cloudless sky"),
        "cloudy": (
            "under a cloudy sky",
            "under the clouds",
            "with clouds in the sky",
            "in cloudy weather",
            "under an overcast sky",
        ),
        "rainy": ("in the rain", "while it rains", "in rainy weather", "under falling rain"),
        "snowy": (
            "while it snows",
            "in falling snow",
            "in snowy weather",
            "with snowflakes falling",
            "during snowfall",
        ),
        "starry": (
            "under a starry sky",
            "under the stars",
            "under stars",
            "with stars in the sky",
            "beneath the stars",
        ),
    },
    "ground": {
        "meadow": (
            "in a meadow",
            "on a meadow",
            "in a grassy meadow",
            "on the grass",
            "in a grassy field",
            "in the grassland",
            "on the lawn",
        ),
        "desert": ("in the desert", "in a desert", "in a sandy desert", "among the dunes"),
        "sea": (
            "by the sea",
            "on the sea",
            "at sea",
            "by the ocean",
            "on the water",
            "at the seaside",
            "by the shore",
            "on the coast",
            "among the waves",
        ),
        "snow field": (
            "on a snow field",
            "on a snowy field",
            "in the snow field",
            "on snowy ground",
            "on a snow-covered field",
        ),
        "city": ("in the city", "in a city", "on a city street", "in town", "downtown"),
    },
    "light": {
        "sun": (
            "under a bright sun",
            "with the sun",
            "under the sun",
            "with the sun shining",
            "in the sunshine",
            "in the sunlight",
        ),
        "moon": (
            "with the moon",
            "under the moon",
            "in the moonlight",
            "under a crescent moon",
            "with the moon shining",
        ),
        "none": ("without sun or moon", "with no sun or moon", "with neither sun nor moon"),
    },
    "place": {
        "left": ("on the left", "to the left side", "on the left side", "at the left"),
        "middle": ("in the middle", "in the centre", "in the center"),
        "right": ("on the right", "to the right side", "on the right side", "at the right"),
    },
}
EN_TAGS: Table = {  # bare words for captions in the manner of a list
    "time": {
        "dawn": ("dawn", "sunrise"),
        "noon": ("noon", "midday"),
        "sunset": ("sunset", "dusk"),
        "night": ("night", "midnight", "nighttime"),
    },
    "sky": {
        "clear": ("clear sky", "clear"),
        "cloudy": ("cloudy sky", "cloudy", "clouds"),
        "rainy": ("rain", "rainy", "raining"),
        "snowy": ("snowfall", "snowy", "snowing"),
        "starry": ("starry sky", "starry", "stars"),
    },
    "ground": {
        "meadow": ("meadow", "grass"),
        "desert": ("desert", "dunes"),
        "sea": ("sea", "ocean"),
        "snow field": ("snow field", "snowy field"),
        "city": ("city", "street"),
    },
    "light": {"sun": ("sun", "bright sun"), "moon": ("moon", "crescent moon"), "none": ("no sun or moon",)},
    "place": {
        "left": ("left", "left side"),
        "middle": ("middle", "centre", "center"),
        "right": ("right", "right side"),
    },
}
EN_PRAISE = ("beautiful", "lovely", "cute", "pretty", "nice", "charming", "simple")
EN_OPENINGS = (
    "a picture of",
    "an illustration of",
    "a drawing of",
    "an image of",
    "a flat illustration of",
    "picture of",
)
EN_STYLES = (
    "flat design", "flat style", "vector art", "8k", "4k", "minimalist", "high quality", "simple shapes",
    "illustration", "soft colours", "cartoon style", "digital art", "highly detailed",
)  # fmt: skip

ZH_THINGS: dict[str, tuple[str, ...]] = {
    "house": ("房子", "屋子", "房屋"),
    "tree": ("树", "树木"),
    "mountain": ("山", "山峰"),
    "boat": ("船", "帆船"),
    "lighthouse": ("灯塔",),
    "castle": ("城堡",),
    "cat": ("猫", "猫咪"),
    "balloon": ("热气球", "气球"),
}
ZH_SIZED: dict[tuple[str, str], tuple[str, ...]] = {  # names that say a size by themselves
    ("house", "small"): ("小屋", "小房子"),
    ("house", "large"): ("大房子",),
    ("tree", "small"): ("小树",),
    ("tree", "large"): ("大树",),
    ("mountain", "small"): ("小山",),
    ("mountain", "large"): ("高山", "大山"),
    ("boat", "small"): ("小船", "小帆船"),
    ("boat", "large"): ("大船", "大帆船"),
    ("lighthouse", "small"): ("小灯塔",),
    ("lighthouse", "large"): ("大灯塔",),
    ("castle", "small"): ("小城堡",),
    ("castle", "large"): ("大城堡",),
    ("cat", "small"): ("小猫", "小猫咪"),
    ("cat", "large"): ("大猫",),
    ("balloon", "small"): ("小热气球",),
    ("balloon", "large"): ("大热气球",),
}
ZH_MEASURES: dict[str, tuple[str, ...]] = {
    "house": ("座", "栋", "间"), "tree": ("棵",), "mountain": ("座",), "boat": ("艘", "只", "条"),
    "lighthouse": ("座",), "castle": ("座",), "cat": ("只",), "balloon": ("只", "个"),
}  # fmt: skip
ZH_NUMBERS: dict[int, tuple[str, ...]] = {1: ("一", "1", ""), 2: ("两", "2"), 3: ("三", "3")}
ZH: Table = {
    "colour": {
        "red": ("红色", "红"),
        "orange": ("橙色", "橘色", "橘黄色"),
        "yellow": ("黄色", "金黄色", "黄"),
        "green": ("绿色", "翠绿色", "绿"),
        "blue": ("蓝色", "天蓝色", "蓝"),
        "purple": ("紫色", "紫"),
        "white": ("白色", "纯白色", "白"),
        "brown": ("棕色", "褐色", "咖啡色"),
    },
    "size": {"small": ("小小的", "很小的", "小型的"), "large": ("巨大的", "很大的", "高大的", "大大的")},
    "time": {
        "dawn": ("黎明", "清晨", "日出时", "拂晓", "早晨", "早上"),
        "noon": ("中午", "正午", "白天"),
        "sunset": ("傍晚", "黄昏", "日落时", "日落时分", "夕阳下", "夕阳西下"),
        "night": ("夜晚", "晚上", "深夜", "夜里", "午夜", "夜空下"),
    },
    "sky": {
        "clear": ("晴空下", "晴朗的天空下", "万里无云"),
        "cloudy": ("多云", "多云的天空下", "云朵下", "阴天"),
        "rainy": ("雨中", "下雨", "下着雨", "细雨中", "雨天"),
        "snowy": ("下雪", "下着雪", "飘着雪花", "大雪中", "雪天"),
        "starry": ("星空下", "繁星下", "满天繁星", "星光下", "满天星星"),
    },
    "ground": {
        "meadow": ("草地上", "草原上", "草坪上", "田野里"),
        "desert": ("沙漠里", "沙漠中", "沙丘上"),
        "sea": ("海边", "海上", "大海上", "海面上", "海滩上", "海岸边", "水面上"),
        "snow field": ("雪地里", "雪地上", "雪原上"),
        "city": ("城市里", "城市中", "城里", "街道上", "都市里"),
    },
    "light": {
        "sun": ("阳光下", "太阳下", "有太阳"),
        "moon": ("月光下", "月亮下", "有月亮", "弯月下"),
        "none": ("没有太阳和月亮", "看不见太阳和月亮"),
    },
    "place": {
        "left": ("左边", "左侧", "画面左边"),
        "middle": ("中间", "中央", "画面中间", "正中间"),
        "right": ("右边", "右侧", "画面右边"),
    },
}
ZH_PRAISE = ("漂亮的", "美丽的", "可爱的", "好看的")
ZH_OPENINGS = ("一幅插画：", "一张图：", "画一幅画：", "图片：")
ZH_STYLES = ("扁平风格", "扁平插画", "高清", "简约", "插画风格", "8k", "矢量图", "卡通风格")

EN_FILLERS = """
a an the and or of in on at to by with without under over beneath beside near above below from for into is are it its
there that this these those they one two three 1 2 3 single pair couple group trio some very so my me i we you please
draw paint make create generate show give want would like see can be stands stand standing sits sit sitting floats
float floating rests rest resting set seen picture image photo drawing painting illustration scene view landscape art
artwork design style flat vector digital cartoon anime wallpaper poster minimal minimalist minimalistic simple shape
shapes high quality highly detailed detail masterpiece best resolution hd 4k 8k hdr ultra soft colour color coloured
colored colours colors colourful colorful beautiful lovely cute pretty nice charming cosy cozy calm peaceful quiet warm
bright dark shining shines shine sky skies time weather while during as when where against background foreground side
thing things object objects something just only no not neither nor day daytime sunny moonlit starlight snow snows
snowflake rains raindrops star crescent full field sand dune sail hot air early falls lit here
"""  # words of a prompt that are no news to the model, next to those in the tables above
ZH_FILLERS = """
的 了 着 在 有 和 与 是 一 二 两 三 个 只 座 栋 间 棵 艘 条 幢 这 那 我 你 请 要 想 给 画 画面 图 图片 图像 照片
幅 张 插画 风格 扁平 矢量 矢量图 卡通 高清 简约 简单 极简 可爱 漂亮 美丽 好看 美 很 非常 大 小 巨大 高大 小小
大大 高 大型 小型 上 下 里 中 边 旁 旁边 前 后 面 左 右 左面 右面 中心 正中 中央 天空 夜色 夜空 夜晚 凌晨 日出
日落 夕阳 时 时分 时候 星星 星光 星夜 繁星 满天 月亮 月光 月夜 弯月 明月 月色 太阳 阳光 晴 晴朗 晴天 晴空 云朵
白云 雨夜 雪花 雪夜 大雪 小雨 大雨 细雨 大海 海面 海洋 海滩 海岸 水面 沙漠 沙丘 草地 草原 草坪 雪地 雪原 城市
街道 街上 都市 色 颜色 生成 绘制 一下 帮 东西 物体 一些 之 得 看见 没有 看不见 也 飘 落 停 停着 站 站着 坐 坐着
飘着 漂 漂浮 立着 背景
"""
ZH_STEMS = (
    "山树猫船海雪雨云月星草夜天空塔屋房城街晚红橙黄绿蓝紫白棕褐金橘"  # known alone, not as the head of a longer word
)
