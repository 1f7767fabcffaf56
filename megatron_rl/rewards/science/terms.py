"""Terms of biology, physics and chemistry that have two names, or an abbreviation: a table, a thing in each line."""

from __future__ import annotations

# Only what textbooks treat as the same; a part, a kind or an effect of a thing stands elsewhere.
TERMS = """
    citric acid cycle | krebs cycle | tca cycle | tricarboxylic acid cycle | tca
    calvin cycle | calvin-benson cycle | calvin-benson-bassham cycle
    light-dependent reaction | light reaction
    light-independent reaction | dark reaction
    plasma membrane | cell membrane | plasmalemma | cytoplasmic membrane
    golgi apparatus | golgi body | golgi complex | golgi
    endoplasmic reticulum | er
    rough endoplasmic reticulum | rough er
    smooth endoplasmic reticulum | smooth er
    red blood cell | erythrocyte | rbc
    white blood cell | leukocyte | wbc
    platelet | thrombocyte
    counterclockwise | anticlockwise | counter-clockwise | anti-clockwise
    deoxyribonucleic acid | dna
    ribonucleic acid | rna
    messenger rna | mrna | messenger ribonucleic acid
    transfer rna | trna | transfer ribonucleic acid
    ribosomal rna | rrna | ribosomal ribonucleic acid
    adenosine triphosphate | atp
    adenosine diphosphate | adp
    adenosine monophosphate | amp
    cyclic adenosine monophosphate | camp | cyclic amp
    guanosine triphosphate | gtp
    coenzyme a | coa
    helicase | dna helicase
    primase | dna primase
    polymerase chain reaction | pcr
    epinephrine | adrenaline | adrenalin
    norepinephrine | noradrenaline | noradrenalin
    antidiuretic hormone | vasopressin | adh
    growth hormone | somatotropin | gh
    thyroid-stimulating hormone | thyrotropin | tsh
    adrenocorticotropic hormone | corticotropin | acth
    follicle-stimulating hormone | fsh
    luteinizing hormone | lh
    parathyroid hormone | parathormone | pth
    human chorionic gonadotropin | hcg
    thyroxine | t4
    triiodothyronine | t3
    vitamin a | retinol
    vitamin b1 | thiamine | thiamin
    vitamin b2 | riboflavin
    vitamin b3 | niacin | nicotinic acid
    vitamin b6 | pyridoxine
    vitamin b9 | folic acid | folate
    vitamin b12 | cobalamin | cyanocobalamin
    vitamin c | ascorbic acid
    vitamin d3 | cholecalciferol
    vitamin e | tocopherol
    trachea | windpipe
    esophagus | gullet | food pipe
    larynx | voice box
    tympanic membrane | eardrum | ear drum
    patella | kneecap
    clavicle | collarbone | collar bone
    scapula | shoulder blade
    femur | thigh bone | thighbone
    sternum | breastbone | breast bone
    tibia | shin bone | shinbone
    mandible | lower jaw | jawbone
    malleus | hammer
    incus | anvil
    stapes | stirrup
    fallopian tube | oviduct | uterine tube
    uterus | womb
    ovum | egg cell | egg
    sperm | spermatozoon | sperm cell
    neuron | nerve cell | neurone
    cardiac muscle | heart muscle
    human immunodeficiency virus | hiv
    escherichia coli | e. coli
    saccharomyces cerevisiae | s. cerevisiae | baker's yeast
    drosophila melanogaster | d. melanogaster
    caenorhabditis elegans | c. elegans
    arabidopsis thaliana | a. thaliana
    electromotive force | emf
    simple harmonic motion | shm
    ultraviolet | uv | ultraviolet radiation | uv radiation | ultraviolet light
    infrared | ir | infrared radiation | ir radiation | infrared light
    alternating current | ac
    direct current | dc
    light-emitting diode | led
    potential difference | voltage
    snell's law | law of refraction
    newton's first law | newton's first law of motion | law of inertia
    newton's second law | newton's second law of motion
    newton's third law | newton's third law of motion
    alpha particle | helium nucleus | helium-4 nucleus
    gamma ray | gamma radiation | gamma
    positron | antielectron
    nuclear magnetic resonance | nmr
    heisenberg uncertainty principle | heisenberg's uncertainty principle | uncertainty principle
    pauli exclusion principle | pauli's exclusion principle | exclusion principle
    le chatelier's principle | le chatelier principle
    london dispersion force | dispersion force | london force
    coordinate covalent bond | coordinate bond | dative bond | dative covalent bond
    bent | v-shaped | angular
    trigonal bipyramidal | trigonal bipyramid
    redox | oxidation-reduction
    high-performance liquid chromatography | hplc
    thin-layer chromatography | tlc
    electrophilic aromatic substitution | eas
"""
